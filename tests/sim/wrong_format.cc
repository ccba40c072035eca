#include "tests/sim/wrong_format.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "engine/base/align.h"
#include "engine/base/status_macros.h"
#include "engine/block/filter_node.h"
#include "engine/runtime/task_set.h"
#include "tests/sim/raw_format.h"

namespace gabion::sim {
namespace {

// Does what its child does, but for one bug. Owned by an OpenImage; used on its thread.
class WrongNode final : public block::FilterNode {
 public:
  WrongNode(block::Node& child, Bug bug, uint64_t seed, runtime::ReadyQueue& ready)
      : FilterNode(child), bug_(bug), random_(seed), background_(ready) {}

 private:
  bool Sometimes(Bug bug) { return bug_ == bug && random_.OneIn(10); }

  Task<absl::Status> DoRead(ByteRange range, MutableBytes dst) override {
    const uint64_t at = range.offset.value;
    const auto old = seen_.find(at);
    if (Sometimes(Bug::kStaleReads) && old != seen_.end() && old->second.size() == dst.size()) {
      std::copy(old->second.begin(), old->second.end(), dst.begin());
      co_return absl::OkStatus();
    }
    const absl::Status status = co_await child().Read(range, dst);
    if (bug_ == Bug::kStaleReads && status.ok()) seen_[at].assign(dst.begin(), dst.end());
    co_return status;
  }

  Task<absl::Status> DoWrite(ByteRange range, Bytes src, block::WriteOptions options) override {
    if (bug_ == Bug::kFuaIgnored) options.durable = false;
    if (Sometimes(Bug::kLostWrites)) return absl::OkStatus();
    if (Sometimes(Bug::kMisplacedWrites) && range.end().value + 512 <= limits().size.value) {
      range.offset.value += 512;
    }
    if (Sometimes(Bug::kLongWrites) && range.end().value + 100 <= limits().size.value) {
      return WriteLong(range, src, options);
    }
    if (bug_ == Bug::kAnswersEarly) {
      background_.Add(WriteLater(range, std::vector<std::byte>(src.begin(), src.end()), options));
      return absl::OkStatus();
    }
    return child().Write(range, src, options);
  }

  Task<absl::Status> WriteLong(ByteRange range, Bytes src, block::WriteOptions options) {
    std::vector<std::byte> bytes(src.begin(), src.end());
    bytes.resize(src.size() + 100);
    range.length.value += 100;
    const absl::Status status = co_await child().Write(range, bytes, options);
    co_return status;
  }

  Task<void> WriteLater(ByteRange range, std::vector<std::byte> bytes,
                        block::WriteOptions options) {
    const absl::Status ignored = co_await child().Write(range, bytes, options);
    ignored.IgnoreError();
  }

  Task<absl::Status> DoDiscard(ByteRange range) override {
    if (bug_ == Bug::kZeroedDiscards) range = AlignOutward(range, {4096}, limits().size);
    return child().Discard(range);
  }

  Task<absl::Status> DoFlush() override {
    if (bug_ == Bug::kFlushDoesNotSync) return absl::OkStatus();
    return child().Flush();
  }

  Task<absl::StatusOr<block::ExtentList>> DoBlockStatus(ByteRange range,
                                                        std::size_t max_extents) override {
    if (Sometimes(Bug::kDataCalledZero)) {
      const block::Extent zeros{.range = range, .kind = block::ExtentKind::kZero};
      return absl::StatusOr<block::ExtentList>(block::ExtentList{zeros});
    }
    return child().BlockStatus(range, max_extents);
  }

  Task<absl::Status> DoClose() override {
    Task<void> drained = background_.Drain();
    co_await drained;
    co_return absl::OkStatus();
  }

  const Bug bug_;
  test::RandomSource random_;
  runtime::TaskSet background_;
  std::map<uint64_t, std::vector<std::byte>> seen_;
};

class WrongFormat final : public SimFormat {
 public:
  explicit WrongFormat(Bug bug) : bug_(bug) {}

  std::string_view name() const override { return "wrong"; }
  bool can_have_backing() const override { return false; }
  SimFileOptions FileOptions(const ImageSpec& spec) const override {
    return RawFormat().FileOptions(spec);
  }
  Task<absl::Status> Create(std::unique_ptr<io::File> file, const ImageSpec& spec) const override {
    return RawFormat().Create(std::move(file), spec);
  }
  Task<absl::Status> Check(std::unique_ptr<io::File> file, const ImageSpec& spec,
                           bool leaks_allowed) const override {
    return RawFormat().Check(std::move(file), spec, leaks_allowed);
  }
  Task<absl::StatusOr<OpenImage>> Open(std::unique_ptr<io::File> file, block::Node* backing,
                                       const ImageSpec& spec,
                                       runtime::ReadyQueue& ready) const override {
    CO_ASSIGN_OR_RETURN(OpenImage image,
                        co_await RawFormat().Open(std::move(file), backing, spec, ready));
    image.Add(std::make_unique<WrongNode>(image.top(), bug_, spec.variant, ready));
    co_return absl::StatusOr<OpenImage>(std::move(image));
  }

 private:
  const Bug bug_;
};

}  // namespace

std::unique_ptr<SimFormat> NewWrongFormat(Bug bug) { return std::make_unique<WrongFormat>(bug); }

}  // namespace gabion::sim
