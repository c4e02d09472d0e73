#include "kernels/seeker.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/output_bytes.hpp"
#include "bindings/python_frame.hpp"
#include "bindings/python_table.hpp"
#include "bindings/text.hpp"
#include "kernels/seek_response.hpp"

namespace {

// A seek of so many bytes takes some 30 microseconds: below, handing over the GIL and waiting for
// it again costs more than others gain.
constexpr size_t kReleaseBytesMin = size_t{4} << 10;
constexpr size_t kKeysKeptMax = size_t{1} << 17;
// A small request may have a large answer, and many of them come at once: one call ends after
// the frame that brings its answers over this, and the caller goes on with the next.
constexpr size_t kReplyBytesMax = size_t{1} << 20;

// Releases the GIL for its life when there is enough to do.
class OptionalRelease {
  public:
    explicit OptionalRelease(bool release) {
        if (release) released_.emplace();
    }

  private:
    std::optional<nb::gil_scoped_release> released_;
};

// Room for keys that is used again by the next request of the thread.
class KeyRoom {
  public:
    ~KeyRoom() {
        if (keys_.capacity() > kKeysKeptMax) std::vector<uint64_t>().swap(keys_);
        keys_.clear();
    }
    std::vector<uint64_t>& keys() { return keys_; }

  private:
    static thread_local std::vector<uint64_t> keys_;
};
thread_local std::vector<uint64_t> KeyRoom::keys_;

nb::bytes seek(cube::Seeker& seeker, const BufferView& payload) {
    const auto begin = cube::LatencyHistogram::Clock::now();
    const bool release = payload.size() >= kReleaseBytesMin;
    KeyRoom room;
    cube::PreparedSeek prepared;
    {
        OptionalRelease released(release);
        prepared = seeker.prepare(payload.bytes(), room.keys());
    }
    OutputBytes output(prepared.response_size_max + cube::kSeekResponseSlack);
    uint8_t* target = output.data();
    size_t size = 0;
    {
        OptionalRelease released(release);
        size = seeker.write_response(prepared, target);
        prepared.table.reset();  // may be the last to hold it
    }
    seeker.latencies().add(cube::LatencyHistogram::Clock::now() - begin, 1);
    return output.finish(size);
}

// One frame to be answered: by a seek, or by an error frame that is ready.
struct Answer {
    int64_t correlation_id = 0;
    cube::PreparedSeek seek;
    std::string error_frame;

    size_t size_max() const {
        if (seek.table == nullptr) return error_frame.size();
        return cube::response_head_size(correlation_id, 0) + seek.response_size_max;
    }
};

class Server {
  public:
    Server(cube::Seeker& seeker, nb::handle data, const BufferView& buffer,
           size_t payload_bytes_max, std::string_view address)
        : seeker_(seeker),
          data_(data),
          start_(buffer.bytes().data()),
          stream_(buffer.bytes(), seeker.frame_bytes_max()),
          payload_bytes_max_(payload_bytes_max),
          address_(address) {}

    nb::tuple serve() {
        cube::Frame frame;
        const auto begin = cube::LatencyHistogram::Clock::now();
        while (reply_size_max_ <= kReplyBytesMax && stream_.next(frame)) take(frame);
        nb::bytes reply = answer();
        if (!answers_.empty())
            seeker_.latencies().add(cube::LatencyHistogram::Clock::now() - begin, answers_.size());
        return nb::make_tuple(reply, others_, stream_.taken(), stream_.needed());
    }

  private:
    void take(const cube::Frame& frame) {
        if (cube::is_plain_seek(frame) && frame.payload.size() <= payload_bytes_max_) {
            prepare(frame);
            return;
        }
        if (!view_.is_valid()) view_ = byte_view(data_);
        others_.append(PythonFrame(frame, view_, start_));
    }
    void prepare(const cube::Frame& frame) {
        Answer& answer = answers_.emplace_back();
        answer.correlation_id = frame.correlation_id;
        try {
            OptionalRelease released(frame.payload.size() >= kReleaseBytesMin &&
                                     seeker_.looks_up_early());
            answer.seek = seeker_.prepare(frame.payload, room_.keys());
            payload_bytes_ += frame.payload.size();
        } catch (const cube::Error& error) {
            answer.error_frame =
                cube::seek_error_frame(error, frame.correlation_id, frame.payload.size(), address_);
            seeker_.note_failure(frame, error.what());
        }
        reply_size_max_ += answer.size_max();
    }
    nb::bytes answer() {
        if (answers_.empty()) return nb::bytes("", 0);
        OutputBytes output(reply_size_max_ + cube::kSeekResponseSlack);
        uint8_t* const begin = output.data();
        uint8_t* at = begin;
        {
            OptionalRelease released(payload_bytes_ >= kReleaseBytesMin);
            for (Answer& answer : answers_) at = write(answer, at);
        }
        return output.finish(static_cast<size_t>(at - begin));
    }
    uint8_t* write(Answer& answer, uint8_t* target) {
        if (answer.seek.table == nullptr)
            return std::copy(answer.error_frame.begin(), answer.error_frame.end(), target);
        const size_t head_size = cube::response_head_size(answer.correlation_id, 0);
        const size_t payload_size = seeker_.write_response(answer.seek, target + head_size);
        cube::write_response_head(target, answer.correlation_id, payload_size, 0);
        answer.seek.table.reset();
        return target + head_size + payload_size;
    }

    cube::Seeker& seeker_;
    nb::handle data_;
    const uint8_t* start_;
    FrameStream stream_;
    size_t payload_bytes_max_;
    std::string_view address_;
    size_t payload_bytes_ = 0;
    size_t reply_size_max_ = 0;
    KeyRoom room_;
    std::vector<Answer> answers_;
    nb::list others_;
    nb::object view_;
};

cube::TablePointer table_of(nb::handle table) {
    if (table.is_none()) return nullptr;
    return nb::cast<const PythonTable&>(table).shared();
}

void set_tables(cube::Seeker& seeker, nb::handle current, nb::sequence others,
                const std::string& dict_name) {
    std::vector<cube::TablePointer> tables;
    for (nb::handle other : others) tables.push_back(nb::cast<const PythonTable&>(other).shared());
    cube::TablePointer current_table = table_of(current);
    nb::gil_scoped_release released;  // what it replaces may be given back here
    seeker.set_tables(dict_name, std::move(current_table), std::move(tables));
}

nb::tuple last_failure(const cube::Seeker& seeker) {
    const cube::Seeker::Failure failure = seeker.last_failure();
    return nb::make_tuple(failure.number, failure.log_id, failure.correlation_id,
                          text_of(failure.text));
}

std::vector<uint64_t> latency_counts(cube::Seeker& seeker) {
    std::vector<uint64_t> counts;
    for (size_t bucket = 0; bucket <= cube::LatencyHistogram::kBoundsUs.size(); ++bucket)
        counts.push_back(seeker.latencies().count(bucket));
    return counts;
}

}  // namespace

void bind_seeker(nb::module_& m) {
    m.attr("LATENCY_BOUNDS_US") = nb::tuple(nb::cast(std::vector<uint32_t>(
        cube::LatencyHistogram::kBoundsUs.begin(), cube::LatencyHistogram::kBoundsUs.end())));
    nb::class_<cube::Seeker>(m, "Seeker", nb::is_final())
        .def(nb::init<size_t, size_t>(), nb::arg("keys_per_request_max"),
             nb::arg("frame_bytes_max"))
        .def("set_tables", &set_tables, nb::arg("current").none(), nb::arg("others") = nb::tuple(),
             nb::kw_only(), nb::arg("dict_name") = "")
        .def("seek", &seek, nb::arg("payload"))
        .def(
            "serve",
            [](cube::Seeker& seeker, nb::handle data, size_t payload_bytes_max,
               std::string_view address) {
                BufferView buffer;
                if (!buffer.acquire(data.ptr()))
                    throw nb::type_error("serve: data must be bytes or a contiguous memoryview");
                return Server(seeker, data, buffer, payload_bytes_max, address).serve();
            },
            nb::arg("data"), nb::arg("payload_bytes_max"), nb::arg("address") = "")
        .def_prop_ro("request_count", &cube::Seeker::request_count)
        .def_prop_ro("key_count", &cube::Seeker::key_count)
        .def_prop_ro("missing_count", &cube::Seeker::missing_count)
        .def_prop_ro("error_count", &cube::Seeker::error_count)
        .def_prop_ro("last_failure", &last_failure,
                     nb::sig("def last_failure(self) -> tuple[int, int, int, str]"))
        .def_prop_ro("request_bytes", &cube::Seeker::request_bytes)
        .def_prop_ro("response_bytes", &cube::Seeker::response_bytes)
        .def_prop_ro("latency_counts", &latency_counts)
        .def_prop_ro("latency_sum_ns",
                     [](cube::Seeker& seeker) { return seeker.latencies().sum_ns(); });
}
