#include "service/domain/image_view.h"

#include <string>
#include <utility>
#include <vector>

#include "service/domain/image_layout.h"
#include "service/errors.h"
#include "service/etag.h"

namespace gabion::service {
namespace {

constexpr std::size_t kMostDependents = 100;

// `stored`: what the row says of its own conditions.
void TellConditions(const Conditions& stored, v1::Image* image, ConditionLog& log) {
  const bool deleted = image->has_delete_time();
  const std::string state = v1::Image::State_Name(image->state());
  ConditionLog::Fact ready{.type = kReady,
                           .satisfied = image->state() == v1::Image::STATE_ACTIVE && !deleted,
                           .reason = state,
                           .message = image->state_error().message()};
  ready.not_before = TransitionOf(kReady, true, stored).value_or(image->create_time());
  std::string reason;
  if (image->has_state_error()) {
    reason = InfoOf(FromRpcStatus(image->state_error())).reason();
    ready.reason = reason;
  } else if (image->state() == v1::Image::STATE_CREATING) {
    ready.since = image->create_time();
  } else if (image->state() == v1::Image::STATE_DELETING) {
    ready.since = TransitionOf(kReady, false, stored);
  } else if (deleted) {
    ready.reason = reason::kImageDeleted.name;
    ready.message = "The image is deleted.";
    ready.since = image->delete_time();
  }
  log.Tell(image->uid(), image->generation(), ready, image->mutable_conditions());
  ConditionLog::Fact tombstone{.type = kDeleted,
                               .satisfied = deleted,
                               .reason = "NotDeleted",
                               .message = "The image has not been deleted."};
  tombstone.since = deleted ? image->delete_time()
                            : TransitionOf(kDeleted, false, stored).value_or(image->create_time());
  log.Tell(image->uid(), image->generation(), tombstone, image->mutable_conditions());
}

void AddDependents(std::vector<std::string> names, v1::Image* image) {
  if (names.size() > kMostDependents) names.resize(kMostDependents);
  for (std::string& name : names) image->add_dependents(std::move(name));
}

// By the row, which says it also of an image that is only being tried.
uint32_t DepthOf(const v1::Image& image, const ImageChains& chains) {
  if (image.backing_image().empty()) return 1;
  return static_cast<uint32_t>(1 + chains.ChainOf(image.backing_image()).size());
}

void TellFile(const engine::ImageInfo& info, v1::Image* image) {
  image->set_virtual_size_bytes(info.virtual_size.value);
  image->set_allocated_bytes(info.allocated.value);
  if (!info.qcow2.has_value()) return;
  *image->mutable_qcow2() = TellLayout(info.qcow2->layout);
  if (!info.qcow2->corrupt) return;
  image->set_state(v1::Image::STATE_CORRUPT);
  *image->mutable_state_error() =
      ToRpcStatus(Error(reason::kImageCorrupt,
                        "The file says that it contradicts itself; CheckImage tells how.")
                      .Metadata("image", image->name()));
}

}  // namespace

EngineCall About(const v1::Image& image) {
  EngineCall call;
  call.image = image.name();
  call.pool = image.pool();
  call.size_field = "image.virtual_size_bytes";
  return call;
}

bool HasFile(const v1::Image& row) { return row.state() == v1::Image::STATE_ACTIVE; }

v1::Image TellImage(v1::Image row, const absl::StatusOr<engine::ImageInfo>& info,
                    const ImageUses& uses, ConditionLog& conditions) {
  v1::Image image = std::move(row);
  const Conditions stored = std::exchange(*image.mutable_conditions(), {});
  if (HasFile(image)) {
    if (info.ok()) {
      TellFile(*info, &image);
    } else {
      const absl::Status error = FromEngine(info.status(), About(image));
      image.set_state(absl::IsDataLoss(error) ? v1::Image::STATE_CORRUPT
                                              : v1::Image::STATE_UNAVAILABLE);
      *image.mutable_state_error() = ToRpcStatus(error);
    }
  }
  AddDependents(uses.exports.ToldExportsOf(image.name()), &image);
  AddDependents(uses.chains.ToldOn(image.name(), kMostDependents), &image);
  image.set_chain_depth(DepthOf(image, uses.chains));
  image.set_reconciling(image.observed_generation() != image.generation() ||
                        image.state() == v1::Image::STATE_CREATING ||
                        image.state() == v1::Image::STATE_DELETING);
  TellConditions(stored, &image, conditions);
  image.set_etag(EtagOf(image));
  return image;
}

}  // namespace gabion::service
