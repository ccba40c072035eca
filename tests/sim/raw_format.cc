#include "tests/sim/raw_format.h"

#include <utility>

#include "engine/base/status_macros.h"
#include "engine/block/aligned_node.h"
#include "engine/formats/raw/raw_node.h"

namespace gabion::sim {
namespace {

class Raw final : public SimFormat {
 public:
  std::string_view name() const override { return "raw"; }
  bool can_have_backing() const override { return false; }

  SimFileOptions FileOptions(const ImageSpec& spec) const override {
    static constexpr uint32_t kAlignments[] = {1, 1, 512, 4096};
    SimFileOptions options;
    options.alignment = kAlignments[spec.variant % 4];
    options.can_punch = (spec.variant >> 2) % 4 != 0;
    options.can_keep_allocated = (spec.variant >> 4) % 2 != 0;
    options.can_map = (spec.variant >> 5) % 4 != 0;
    return options;
  }

  Task<absl::Status> Create(std::unique_ptr<io::File> file, const ImageSpec& spec) const override {
    CO_RETURN_IF_ERROR(co_await file->Resize({spec.size}));
    CO_RETURN_IF_ERROR(co_await file->Sync());
    const absl::Status status = co_await file->Close();
    co_return status;
  }

  Task<absl::StatusOr<OpenImage>> Open(std::unique_ptr<io::File> file, block::Node*,
                                       const ImageSpec&,
                                       runtime::ReadyQueue& ready) const override {
    OpenImage image;
    image.Add(raw::NewRawNode(std::move(file), {}));
    const block::Limits& limits = image.top().limits();
    if (limits.alignment.value > 1 || limits.memory_alignment > 1) {
      image.Add(std::make_unique<block::AlignedNode>(image.top(), ready));
    }
    return absl::StatusOr<OpenImage>(std::move(image));
  }

  Task<absl::Status> Check(std::unique_ptr<io::File> file, const ImageSpec& spec,
                           bool) const override {
    const bool whole = file->size().value == spec.size;
    CO_RETURN_IF_ERROR(co_await file->Close());
    if (!whole) co_return absl::DataLossError("the file does not have the size of the disk");
    co_return absl::OkStatus();
  }
};

}  // namespace

const SimFormat& RawFormat() {
  static const Raw format;
  return format;
}

}  // namespace gabion::sim
