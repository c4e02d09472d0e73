// The floor: a plain epoll loop around the same kernel, nothing else. One thread, blocking writes.
//
//   floor PORT TABLE_FILE

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/frame.hpp"
#include "kernels/seek_response.hpp"
#include "kernels/seeker.hpp"
#include "kernels/table.hpp"

namespace {

constexpr size_t kReadBytes = 1 << 18;
constexpr size_t kKeysMax = 1 << 20;
constexpr size_t kConnectionsMax = 1024;  // file descriptors, really: they are the index
constexpr size_t kFrameBytesMax = 64 << 20;

int listen_on(int port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    const int one = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(fd, 64) != 0) {
        throw std::runtime_error("cannot listen on 127.0.0.1:" + std::to_string(port));
    }
    return fd;
}

class Floor {
  public:
    explicit Floor(const std::string& table) : seeker_(kKeysMax, kFrameBytesMax) {
        seeker_.set_tables("", cube::Table::open(table, cube::TablePlace::kPrivate), {});
    }

    void serve(int listener) {
        const int poll = ::epoll_create1(0);
        watch(poll, listener);
        std::vector<epoll_event> events(64);
        for (;;) {
            const int ready =
                ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), -1);
            for (int i = 0; i < ready; ++i) {
                const int fd = events[static_cast<size_t>(i)].data.fd;
                if (fd == listener) {
                    watch(poll, accept_one(listener));
                } else if (!answer(fd)) {
                    ::close(fd);
                }
            }
        }
    }

  private:
    static void watch(int poll, int fd) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        ::epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
    }

    static int accept_one(int listener) {
        const int fd = ::accept(listener, nullptr, nullptr);
        const int one = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
    }

    bool answer(int fd) {
        Received& received = received_[static_cast<size_t>(fd)];
        if (received.used + kReadBytes > received.bytes.size())
            received.bytes.resize(received.used + kReadBytes);
        const ssize_t read = ::recv(fd, received.bytes.data() + received.used, kReadBytes, 0);
        if (read <= 0) {
            received.used = 0;
            return false;
        }
        received.used += static_cast<size_t>(read);
        const cube::Bytes all = cube::Bytes(received.bytes).first(received.used);
        size_t consumed = 0;
        reply_used_ = 0;
        while (consumed < all.size()) {
            const cube::Bytes rest = all.subspan(consumed);
            const size_t size = cube::frame_size(rest, kFrameBytesMax);
            if (rest.size() < size) break;
            append_reply(cube::parse_frame(rest.first(size)));
            consumed += size;
        }
        std::copy(all.begin() + static_cast<ssize_t>(consumed), all.end(), received.bytes.begin());
        received.used -= consumed;
        return send_all(fd);
    }

    void append_reply(const cube::Frame& frame) {
        keys_.clear();
        const cube::PreparedSeek seek = seeker_.prepare(frame.payload, keys_);
        const size_t head_bytes = cube::response_head_size(frame.correlation_id, 0);
        const size_t needed =
            reply_used_ + head_bytes + seek.response_size_max + cube::kSeekResponseSlack;
        if (needed > reply_.size()) reply_.resize(2 * needed);
        uint8_t* target = reply_.data() + reply_used_;
        const size_t payload_bytes = seeker_.write_response(seek, target + head_bytes);
        cube::write_response_head(target, frame.correlation_id, payload_bytes, 0);
        reply_used_ += head_bytes + payload_bytes;
    }

    bool send_all(int fd) const {
        for (size_t at = 0; at < reply_used_;) {
            const ssize_t wrote = ::send(fd, reply_.data() + at, reply_used_ - at, MSG_NOSIGNAL);
            if (wrote <= 0) return false;
            at += static_cast<size_t>(wrote);
        }
        return true;
    }

    // Buffers grow once and are kept: the floor pays for no allocation a request.
    struct Received {
        std::vector<uint8_t> bytes;
        size_t used = 0;
    };

    cube::Seeker seeker_;
    std::vector<Received> received_ = std::vector<Received>(kConnectionsMax);
    std::vector<uint64_t> keys_;
    std::vector<uint8_t> reply_;
    size_t reply_used_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: floor PORT TABLE_FILE\n");
        return 2;
    }
    try {
        Floor floor(argv[2]);
        const int listener = listen_on(std::atoi(argv[1]));
        std::printf("ready\n");
        std::fflush(stdout);
        floor.serve(listener);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "floor: %s\n", error.what());
        return 2;
    }
}
