#include "service/domain/domain_views.h"

#include <utility>

#include "engine/base/status_macros.h"
#include "service/domain/identity.h"
#include "service/errors.h"

namespace gabion::service {

DomainViews::DomainViews(const PoolManager& pools, const ImageManager& images,
                         const ExportManager& exports, const ConnectionManager& connections,
                         GetOperation get_operation)
    : pools_(pools),
      images_(images),
      exports_(exports),
      connections_(connections),
      get_operation_(std::move(get_operation)) {}

std::vector<absl::StatusOr<v1::WatchResponse>> DomainViews::View(
    std::span<const std::string> names) {
  std::vector<absl::StatusOr<v1::WatchResponse>> views;
  views.reserve(names.size());
  for (const std::string& name : names) views.push_back(ViewOne(name));
  return views;
}

absl::StatusOr<v1::WatchResponse> DomainViews::ViewOne(const std::string& name) const {
  v1::WatchResponse view;
  view.set_name(name);
  if (name.starts_with("images/")) {
    ASSIGN_OR_RETURN(*view.mutable_image(), images_.Get(name));
  } else if (name.starts_with("operations/")) {
    ASSIGN_OR_RETURN(*view.mutable_operation(), get_operation_(name));
  } else if (name.starts_with("pools/")) {
    ASSIGN_OR_RETURN(*view.mutable_pool(), pools_.Get(name));
  } else if (ParseConnectionName(name).has_value()) {
    ASSIGN_OR_RETURN(*view.mutable_connection(), connections_.Get(name));
  } else if (name.starts_with("exports/")) {
    ASSIGN_OR_RETURN(*view.mutable_export_(), exports_.Get(name));
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
