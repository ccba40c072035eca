#include "service/domain/domain_views.h"

#include <utility>

#include "engine/base/status_macros.h"
#include "service/domain/identity.h"
#include "service/errors.h"

namespace gabion::service {
namespace {

bool IsImage(const std::string& name) { return name.starts_with("images/"); }
bool IsExport(const std::string& name) {
  return name.starts_with("exports/") && !ParseConnectionName(name).has_value();
}

void SetImage(v1::Image image, v1::WatchResponse* view) {
  *view->mutable_image() = std::move(image);
}
void SetExport(v1::Export exported, v1::WatchResponse* view) {
  *view->mutable_export_() = std::move(exported);
}

template <typename Resource>
absl::StatusOr<v1::WatchResponse> ViewOf(const std::string& name, absl::StatusOr<Resource> resource,
                                         void (*set)(Resource, v1::WatchResponse*)) {
  RETURN_IF_ERROR(resource.status());
  v1::WatchResponse view;
  view.set_name(name);
  set(*std::move(resource), &view);
  return view;
}

}  // namespace

DomainViews::DomainViews(const PoolManager& pools, const ImageManager& images,
                         const ExportManager& exports, const FilterManager& filters,
                         const ConnectionManager& connections, GetOperation get_operation)
    : pools_(pools),
      images_(images),
      exports_(exports),
      filters_(filters),
      connections_(connections),
      get_operation_(std::move(get_operation)) {}

std::vector<absl::StatusOr<v1::WatchResponse>> DomainViews::View(
    std::span<const std::string> names) {
  std::vector<std::string> image_names;
  std::vector<std::string> export_names;
  for (const std::string& name : names) {
    if (IsImage(name)) image_names.push_back(name);
    if (IsExport(name)) export_names.push_back(name);
  }
  // Images and exports are looked at together, because each look is a way to the data plane.
  std::vector<absl::StatusOr<v1::Image>> images = images_.GetMany(image_names);
  std::vector<absl::StatusOr<v1::Export>> exports = exports_.GetMany(export_names);
  std::vector<absl::StatusOr<v1::WatchResponse>> views;
  views.reserve(names.size());
  std::size_t next_image = 0;
  std::size_t next_export = 0;
  for (const std::string& name : names) {
    if (IsImage(name)) {
      views.push_back(ViewOf(name, std::move(images[next_image++]), &SetImage));
    } else if (IsExport(name)) {
      views.push_back(ViewOf(name, std::move(exports[next_export++]), &SetExport));
    } else {
      views.push_back(ViewOne(name));
    }
  }
  return views;
}

absl::StatusOr<v1::WatchResponse> DomainViews::ViewOne(const std::string& name) const {
  v1::WatchResponse view;
  view.set_name(name);
  if (name.starts_with("operations/")) {
    ASSIGN_OR_RETURN(*view.mutable_operation(), get_operation_(name));
  } else if (name.starts_with("pools/")) {
    ASSIGN_OR_RETURN(*view.mutable_pool(), pools_.Get(name));
  } else if (name.starts_with("filters/")) {
    ASSIGN_OR_RETURN(*view.mutable_filter(), filters_.Get(name));
  } else if (ParseConnectionName(name).has_value()) {
    ASSIGN_OR_RETURN(*view.mutable_connection(), connections_.Get(name));
  } else {
    return NotFound("resource", name);
  }
  return view;
}

absl::StatusOr<std::vector<std::string>> DomainViews::Configured(std::string_view collection) {
  std::vector<std::string> names;
  if (collection != "pools") return names;
  v1::ListPoolsRequest request;
  do {
    ASSIGN_OR_RETURN(const v1::ListPoolsResponse page, pools_.List(request));
    for (const v1::Pool& pool : page.pools()) names.push_back(pool.name());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return names;
}

}  // namespace gabion::service
