#include "tests/sim/cow_format.h"

#include <string_view>
#include <utility>

#include "engine/base/log.h"
#include "engine/base/status_macros.h"
#include "engine/block/filter_node.h"
#include "engine/block/sparse_memory.h"
#include "engine/filters/cow.h"
#include "engine/filters/resize.h"
#include "engine/formats/qcow2/geometry.h"
#include "engine/formats/qcow2/qcow2_node.h"
#include "tests/sim/qcow2_format.h"
#include "tests/support/manual_clock.h"

namespace gabion::sim {
namespace {

class Silent final : public Logger {
  void Log(LogLevel, std::string_view, std::string_view) override {}
};

// What the filter stands on, and itself.
struct Parts {
  explicit Parts(runtime::ReadyQueue& ready_queue) : ready(ready_queue), clock(ready_queue) {}

  filters::Environment environment() { return {ready, clock, logger, "simulation"}; }

  runtime::ReadyQueue& ready;
  test::ManualClock clock;
  Silent logger;
  std::unique_ptr<block::Node> nothing;  // below, if there is no other disk
  std::unique_ptr<filters::Filter> below;
  std::unique_ptr<filters::CowState> state;
  std::unique_ptr<filters::Filter> cow;
};

class KeptCow final : public block::FilterNode {
 public:
  explicit KeptCow(std::unique_ptr<Parts> parts)
      : FilterNode(static_cast<block::Node&>(*parts->cow)), parts_(std::move(parts)) {}

 private:
  const std::unique_ptr<Parts> parts_;
};

// The image of the changes: it stands on nothing, and what it has hides what is below.
ImageSpec Alone(const ImageSpec& spec) {
  ImageSpec alone = spec;
  alone.backing_size.reset();
  alone.base.clear();
  alone.may_preallocate = false;
  return alone;
}

class Cow final : public SimFormat {
 public:
  std::string_view name() const override { return "cow"; }
  bool can_have_backing() const override { return true; }
  SimFileOptions FileOptions(const ImageSpec& spec) const override {
    return Qcow2Format().FileOptions(spec);
  }
  Task<absl::Status> Create(std::unique_ptr<io::File> file, const ImageSpec& spec) const override {
    const ImageSpec alone = Alone(spec);
    const absl::Status status = co_await Qcow2Format().Create(std::move(file), alone);
    co_return status;
  }
  Task<absl::StatusOr<OpenImage>> Open(std::unique_ptr<io::File> file, block::Node* backing,
                                       const ImageSpec& spec,
                                       runtime::ReadyQueue& ready) const override {
    const ImageSpec alone = Alone(spec);
    CO_ASSIGN_OR_RETURN(OpenImage image,
                        co_await Qcow2Format().Open(std::move(file), nullptr, alone, ready));
    auto& scratch = static_cast<qcow2::Qcow2Node&>(image.top());
    auto parts = std::make_unique<Parts>(ready);
    const uint64_t unit = qcow2::Geometry(scratch.header()).subcluster_size();
    absl::StatusOr<std::unique_ptr<filters::CowState>> state =
        co_await filters::LoadCowState(scratch, unit, ready);
    if (!state.ok()) {
      const absl::Status closed = co_await image.Close();
      closed.IgnoreError();
      co_return state.status();
    }
    parts->state = *std::move(state);
    if (backing == nullptr) {
      parts->nothing = std::make_unique<block::SparseMemory>(
          block::SparseMemoryOptions{.size = ByteCount{spec.size}});
      backing = parts->nothing.get();
    }
    parts->below = filters::NewResize(*backing, parts->environment(), {.bytes = spec.size});
    parts->cow =
        filters::NewCow(*parts->below, parts->environment(), "cow", scratch, *parts->state);
    image.Add(std::make_unique<KeptCow>(std::move(parts)));
    co_return absl::StatusOr<OpenImage>(std::move(image));
  }
  Task<absl::Status> Check(std::unique_ptr<io::File> file, const ImageSpec& spec,
                           bool leaks_allowed) const override {
    const ImageSpec alone = Alone(spec);
    const absl::Status status = co_await Qcow2Format().Check(std::move(file), alone, leaks_allowed);
    co_return status;
  }
};

}  // namespace

const SimFormat& CowFormat() {
  static const Cow format;
  return format;
}

}  // namespace gabion::sim
