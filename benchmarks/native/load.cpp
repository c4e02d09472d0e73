// Load generator: batch reads, closed-loop or at a rate, over many connections, one thread, epoll.
//
//   load --protocol=prpc|resp|memcached --port=8001 --connections=8 --depth=1 --keys=26
//        --key_space=1000000 --requests=100000 [--seed=1] [--rate=0]
//
// With a rate (requests a second, all connections together) requests are sent when they are due,
// answered or not, and latencies count from then: a stall of the server costs all that it delays.
//
// Requests are encoded before the clock starts, so that this process is not the bottleneck, and
// every response is read to its end and its found values counted. Prints one JSON object.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// Enough that most keys are asked for: with fewer, the rows that answer would stay in the caches of
// the CPU, whatever the table's size.
constexpr uint64_t kPreparedRequestsMin = 512;
constexpr uint64_t kPreparedRequestsMax = 200'000;
constexpr size_t kReadBytes = 1 << 18;

struct Options {
    std::string protocol = "prpc";
    int port = 8001;
    int connections = 8;
    int depth = 1;
    int keys = 26;
    uint64_t key_space = 1000000;
    uint64_t requests = 100000;
    uint64_t seed = 1;
    uint64_t rate = 0;
};

Options parse_options(int argc, char** argv) {
    std::map<std::string, std::string> given;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        const size_t equals = argument.find('=');
        if (!argument.starts_with("--") || equals == std::string_view::npos) {
            throw std::invalid_argument("write --name=value, not " + std::string(argument));
        }
        given.emplace(argument.substr(2, equals - 2), argument.substr(equals + 1));
    }
    Options options;
    auto take = [&given](const char* name, auto& target) {
        const auto found = given.find(name);
        if (found == given.end()) return;
        if constexpr (std::is_same_v<std::decay_t<decltype(target)>, std::string>) {
            target = found->second;
        } else {
            target = static_cast<std::decay_t<decltype(target)>>(std::stoull(found->second));
        }
        given.erase(found);
    };
    take("protocol", options.protocol);
    take("port", options.port);
    take("connections", options.connections);
    take("depth", options.depth);
    take("keys", options.keys);
    take("key_space", options.key_space);
    take("requests", options.requests);
    take("seed", options.seed);
    take("rate", options.rate);
    if (!given.empty()) throw std::invalid_argument("no such option: --" + given.begin()->first);
    return options;
}

void put_varint(std::string& out, uint64_t value) {
    while (value >= 0x80) {
        out.push_back(static_cast<char>(value | 0x80));
        value >>= 7;
    }
    out.push_back(static_cast<char>(value));
}

void put_u32be(std::string& out, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

std::string prpc_request(const std::vector<uint64_t>& keys) {
    // RpcMeta{request{service_name, method_name}, correlation_id 1}
    static const std::string meta =
        std::string("\x0a\x1d\x0a\x15rec.mcube.DictService\x12\x04seek", 31) + "\x20\x01";
    std::string payload;
    for (const uint64_t key : keys) {
        payload.push_back(0x08);
        put_varint(payload, key);
    }
    std::string frame = "PRPC";
    put_u32be(frame, static_cast<uint32_t>(meta.size() + payload.size()));
    put_u32be(frame, static_cast<uint32_t>(meta.size()));
    return frame + meta + payload;
}

std::string resp_request(const std::vector<uint64_t>& keys) {
    std::string request = "*" + std::to_string(keys.size() + 1) + "\r\n$4\r\nMGET\r\n";
    for (const uint64_t key : keys) {
        const std::string text = std::to_string(key);
        request += "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
    }
    return request;
}

std::string memcached_request(const std::vector<uint64_t>& keys) {
    std::string request = "get";
    for (const uint64_t key : keys) request += " " + std::to_string(key);
    return request + "\r\n";
}

struct Reply {
    size_t bytes;  // 0: not complete yet
    uint64_t found;
};

uint32_t u32be(const char* at) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(at);
    return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

// Found values are told by size: a miss takes 10 bytes in a DictResponse, a hit far more.
Reply prpc_reply(std::string_view data, int keys) {
    if (data.size() < 12) return {0, 0};
    if (!data.starts_with("PRPC")) throw std::runtime_error("the reply is no PRPC frame");
    const size_t body = u32be(data.data() + 4);
    const size_t meta = u32be(data.data() + 8);
    if (data.size() < 12 + body) return {0, 0};
    const size_t payload = body - meta;
    if (payload == 0) throw std::runtime_error("an error frame came back");
    return {12 + body, payload > static_cast<size_t>(keys) * 10 ? static_cast<uint64_t>(keys) : 0};
}

Reply resp_reply(std::string_view data, int keys) {
    size_t at = data.find("\r\n");
    if (at == std::string_view::npos) return {0, 0};
    if (data[0] != '*') throw std::runtime_error("the reply is " + std::string(data.substr(0, at)));
    at += 2;
    uint64_t found = 0;
    for (int i = 0; i < keys; ++i) {
        const size_t end = data.find("\r\n", at);
        if (end == std::string_view::npos) return {0, 0};
        const long length = std::strtol(data.data() + at + 1, nullptr, 10);
        at = end + 2;
        if (length >= 0) {
            at += static_cast<size_t>(length) + 2;
            ++found;
        }
        if (at > data.size()) return {0, 0};
    }
    return {at, found};
}

Reply memcached_reply(std::string_view data, int) {
    size_t at = 0;
    uint64_t found = 0;
    for (;;) {
        const size_t end = data.find("\r\n", at);
        if (end == std::string_view::npos) return {0, 0};
        const std::string_view line = data.substr(at, end - at);
        if (line == "END") return {end + 2, found};
        if (!line.starts_with("VALUE ")) throw std::runtime_error(std::string(line));
        const size_t length = std::strtoul(line.data() + line.rfind(' ') + 1, nullptr, 10);
        at = end + 2 + length + 2;
        if (at > data.size()) return {0, 0};
        ++found;
    }
}

struct Protocol {
    std::string (*encode)(const std::vector<uint64_t>&);
    Reply (*reply)(std::string_view, int);
};

Protocol protocol_named(const std::string& name) {
    if (name == "prpc") return {prpc_request, prpc_reply};
    if (name == "resp") return {resp_request, resp_reply};
    if (name == "memcached") return {memcached_request, memcached_reply};
    throw std::invalid_argument("--protocol is prpc, resp or memcached, not " + name);
}

int connect_to(int port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
        throw std::runtime_error("cannot connect to 127.0.0.1:" + std::to_string(port));
    }
    const int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

struct Connection {
    int fd = -1;
    std::string received;
    std::deque<Clock::time_point> sent_at;
};

class Load {
  public:
    explicit Load(const Options& options)
        : options_(options), protocol_(protocol_named(options.protocol)) {
        std::mt19937_64 random(options.seed);
        std::vector<uint64_t> keys(static_cast<size_t>(options.keys));
        const uint64_t wanted = 2 * options.key_space / static_cast<uint64_t>(options.keys);
        const uint64_t prepared_num =
            std::min(std::clamp(wanted, kPreparedRequestsMin, kPreparedRequestsMax),
                     std::max<uint64_t>(options.requests, 1));
        for (uint64_t i = 0; i < prepared_num; ++i) {
            for (uint64_t& key : keys) key = random() % options.key_space;
            prepared_.push_back(protocol_.encode(keys));
        }
        latencies_ns_.reserve(options.requests);
    }

    void run() {
        const int poll = ::epoll_create1(0);
        connections_.resize(static_cast<size_t>(options_.connections));
        for (size_t i = 0; i < connections_.size(); ++i) {
            connections_[i].fd = connect_to(options_.port);
            epoll_event event{};
            event.events = EPOLLIN;
            event.data.u64 = i;
            ::epoll_ctl(poll, EPOLL_CTL_ADD, connections_[i].fd, &event);
        }
        begin_ = Clock::now();
        if (options_.rate != 0) {
            start_timer(poll);
        } else {
            for (Connection& connection : connections_) send_some(connection, options_.depth);
        }
        std::vector<epoll_event> events(connections_.size() + 1);
        while (latencies_ns_.size() < options_.requests) {
            const int ready =
                ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), 10000);
            if (ready <= 0) throw std::runtime_error("no reply within 10 s");
            for (int i = 0; i < ready; ++i) {
                const uint64_t who = events[static_cast<size_t>(i)].data.u64;
                if (who == kTimer) {
                    send_due();
                } else {
                    receive(connections_[who]);
                }
            }
        }
        seconds_ = std::chrono::duration<double>(Clock::now() - begin_).count();
        for (const Connection& connection : connections_) ::close(connection.fd);
        ::close(poll);
    }

    void print() {
        std::sort(latencies_ns_.begin(), latencies_ns_.end());
        auto at = [this](double share) {
            const auto index =
                static_cast<size_t>(share * static_cast<double>(latencies_ns_.size() - 1));
            return static_cast<double>(latencies_ns_[index]) / 1e3;
        };
        std::printf(
            "{\"requests\": %zu, \"seconds\": %.6f, \"requests_per_s\": %.1f, \"found\": %llu, "
            "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
            latencies_ns_.size(), seconds_, static_cast<double>(latencies_ns_.size()) / seconds_,
            static_cast<unsigned long long>(found_), at(0.5), at(0.99), at(0.999), at(1.0));
    }

  private:
    static constexpr uint64_t kTimer = ~uint64_t{0};

    void start_timer(int poll) {
        timer_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        itimerspec often{};
        often.it_value.tv_nsec = often.it_interval.tv_nsec = 100'000;
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = kTimer;
        if (timer_ < 0 || ::timerfd_settime(timer_, 0, &often, nullptr) != 0 ||
            ::epoll_ctl(poll, EPOLL_CTL_ADD, timer_, &event) != 0)
            throw std::runtime_error("no timer");
    }

    void send_due() {
        uint64_t expirations;
        if (::read(timer_, &expirations, sizeof expirations) < 0) return;
        const auto interval = std::chrono::nanoseconds(1'000'000'000 / options_.rate);
        for (auto due = begin_ + interval * sent_; due <= Clock::now() && sent_ < options_.requests;
             due += interval)
            send_some(connections_[sent_ % connections_.size()], 1, due);
    }

    void send_some(Connection& connection, int count, Clock::time_point due = Clock::now()) {
        outgoing_.clear();
        for (int i = 0; i < count && sent_ < options_.requests; ++i) {
            outgoing_ += prepared_[sent_++ % prepared_.size()];
            connection.sent_at.push_back(due);
        }
        for (size_t at = 0; at < outgoing_.size();) {
            const ssize_t wrote =
                ::send(connection.fd, outgoing_.data() + at, outgoing_.size() - at, 0);
            if (wrote <= 0) throw std::runtime_error("the server closed the connection");
            at += static_cast<size_t>(wrote);
        }
    }

    void receive(Connection& connection) {
        const size_t before = connection.received.size();
        connection.received.resize(before + kReadBytes);
        const ssize_t read =
            ::recv(connection.fd, connection.received.data() + before, kReadBytes, 0);
        if (read <= 0) throw std::runtime_error("the server closed the connection");
        connection.received.resize(before + static_cast<size_t>(read));
        size_t consumed = 0;
        int answered = 0;
        for (;;) {
            const Reply reply = protocol_.reply(
                std::string_view(connection.received).substr(consumed), options_.keys);
            if (reply.bytes == 0) break;
            consumed += reply.bytes;
            found_ += reply.found;
            ++answered;
            latencies_ns_.push_back(static_cast<uint64_t>(
                std::chrono::nanoseconds(Clock::now() - connection.sent_at.front()).count()));
            connection.sent_at.pop_front();
        }
        connection.received.erase(0, consumed);
        if (options_.rate == 0) send_some(connection, answered);
    }

    Options options_;
    Protocol protocol_;
    std::vector<std::string> prepared_;
    std::vector<Connection> connections_;
    std::string outgoing_;
    std::vector<uint64_t> latencies_ns_;
    Clock::time_point begin_;
    double seconds_ = 0;
    int timer_ = -1;
    uint64_t sent_ = 0;
    uint64_t found_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    try {
        Load load(parse_options(argc, argv));
        load.run();
        load.print();
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "load: %s\n", error.what());
        return 2;
    }
}
