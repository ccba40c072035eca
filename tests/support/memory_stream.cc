#include "tests/support/memory_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/bytes.h"
#include "engine/base/check.h"

namespace gabion::test {

class MemoryConnection::End final : public io::Stream {
 public:
  explicit End(MemoryConnection& connection) : c_(connection) {}
  ~End() override {
    CHECK(!reading_);
    CHECK(!writing_);
    c_.destroyed_ = true;
  }

  Task<absl::StatusOr<std::size_t>> ReadSome(MutableBytes dst) override {
    CHECK(!dst.empty());
    CHECK(!std::exchange(reading_, true));
    ++c_.read_calls_;
    co_await Dawdle();
    while (c_.to_server_.empty() && !c_.ended_ && !c_.read_shut_ && !c_.shut_ && !c_.broken_) {
      co_await c_.changed_.Wait();
    }
    reading_ = false;
    if (c_.broken_) co_return absl::UnavailableError("connection reset");
    if (c_.to_server_.empty() || c_.shut_) co_return std::size_t{0};
    const std::size_t length = Cut(std::min(dst.size(), c_.to_server_.size()));
    std::memcpy(dst.data(), c_.to_server_.data(), length);
    c_.to_server_.erase(0, length);
    co_return length;
  }

  Task<absl::Status> WriteAll(std::span<const Bytes> pieces) override {
    CHECK(!std::exchange(writing_, true));
    ++c_.write_calls_;
    absl::Status status;
    for (std::size_t i = 0; i < pieces.size() && status.ok(); ++i) {
      Bytes rest = pieces[i];
      while (!rest.empty() && status.ok()) {
        status = co_await WaitForRoom();
        if (status.ok()) rest = Put(rest);
      }
    }
    writing_ = false;
    co_return status;
  }

  void ShutdownRead() override {
    c_.read_shut_ = true;
    c_.changed_.WakeAll();
  }
  void Shutdown() override {
    c_.shut_ = true;
    c_.changed_.WakeAll();
  }
  const std::string& peer() const override { return peer_; }

 private:
  Task<void> Dawdle() {
    if (c_.random_ == nullptr) co_return;
    for (uint64_t turns = c_.random_->Below(3); turns > 0; --turns) co_await c_.ready_.Yield();
  }

  std::size_t Cut(std::size_t longest) {
    if (c_.random_ == nullptr || c_.random_->OneIn(2)) return longest;
    return c_.random_->Between(1, std::min<std::size_t>(longest, 64));
  }

  Task<absl::Status> WaitForRoom() {
    co_await Dawdle();
    while (c_.window_ == 0 && !c_.shut_ && !c_.broken_) {
      c_.write_waits_ = true;
      co_await c_.changed_.Wait();
    }
    c_.write_waits_ = false;
    if (c_.fail_after_ == 0) c_.broken_ = true;
    if (c_.shut_ || c_.broken_) {
      c_.changed_.WakeAll();
      co_return absl::UnavailableError("broken pipe");
    }
    co_return absl::OkStatus();
  }

  // Returns what did not fit.
  Bytes Put(Bytes bytes) {
    const auto length = std::min<uint64_t>({bytes.size(), c_.window_, c_.fail_after_});
    c_.to_client_.append(AsText(bytes.first(length)));
    c_.written_ += length;
    if (c_.window_ != kNoLimit) c_.window_ -= length;
    if (c_.fail_after_ != kNoLimit) c_.fail_after_ -= length;
    return bytes.subspan(length);
  }

  MemoryConnection& c_;
  const std::string peer_ = "memory";
  bool reading_ = false;
  bool writing_ = false;
};

MemoryConnection::MemoryConnection(runtime::ReadyQueue& ready) : ready_(ready), changed_(ready) {}

std::unique_ptr<io::Stream> MemoryConnection::TakeStream() {
  CHECK(!std::exchange(taken_, true));
  return std::make_unique<End>(*this);
}

void MemoryConnection::Send(std::string_view bytes) {
  CHECK(!ended_);
  to_server_.append(bytes);
  changed_.WakeAll();
}

void MemoryConnection::CloseSending() {
  ended_ = true;
  changed_.WakeAll();
}

std::string MemoryConnection::TakeReceived() { return std::exchange(to_client_, std::string()); }

void MemoryConnection::SetWindow(uint64_t bytes) {
  window_ = bytes;
  changed_.WakeAll();
}

}  // namespace gabion::test
