#include "service/domain/image_view.h"

#include <string>
#include <utility>
#include <vector>

#include "service/errors.h"
#include "service/etag.h"

namespace gabion::service {
namespace {

constexpr std::size_t kMostDependents = 100;

void TellConditions(v1::Image* image, ConditionLog& log) {
  const bool ready = image->state() == v1::Image::STATE_ACTIVE;
  std::string reason = v1::Image::State_Name(image->state());
  if (image->has_state_error()) reason = InfoOf(FromRpcStatus(image->state_error())).reason();
  auto* conditions = image->mutable_conditions();
  log.Tell(image->uid(), image->generation(), "Ready", ready, reason,
           image->state_error().message(), image->create_time(), conditions);
  log.Tell(image->uid(), image->generation(), "Deleted", image->has_delete_time(), "NotDeleted",
           "The image has not been deleted.", image->create_time(), conditions);
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
                    const ExportIndex& index, ConditionLog& conditions) {
  v1::Image image = std::move(row);
  if (HasFile(image)) {
    if (info.ok()) {
      image.set_virtual_size_bytes(info->virtual_size.value);
      image.set_allocated_bytes(info->allocated.value);
    } else {
      image.set_state(v1::Image::STATE_UNAVAILABLE);
      *image.mutable_state_error() = ToRpcStatus(FromEngine(info.status(), About(image)));
    }
  }
  std::vector<std::string> dependents = index.DependentsOf(image.name());
  if (dependents.size() > kMostDependents) dependents.resize(kMostDependents);
  for (std::string& dependent : dependents) image.add_dependents(std::move(dependent));
  image.set_reconciling(image.observed_generation() != image.generation() ||
                        image.state() == v1::Image::STATE_CREATING ||
                        image.state() == v1::Image::STATE_DELETING);
  TellConditions(&image, conditions);
  image.set_etag(EtagOf(image));
  return image;
}

}  // namespace gabion::service
