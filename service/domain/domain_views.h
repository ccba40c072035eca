// The resources of the managers, for watches.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "google/longrunning/operations.pb.h"
#include "service/domain/connection_manager.h"
#include "service/domain/export_manager.h"
#include "service/domain/filter_manager.h"
#include "service/domain/image_manager.h"
#include "service/domain/pool_manager.h"
#include "service/domain/resource_views.h"

namespace gabion::service {

// Owned by the domain; any thread of the executor, which blocks.
class DomainViews final : public ResourceViews {
 public:
  using GetOperation =
      std::function<absl::StatusOr<google::longrunning::Operation>(const std::string& name)>;

  // All of them outlive this.
  DomainViews(const PoolManager& pools, const ImageManager& images, const ExportManager& exports,
              const FilterManager& filters, const ConnectionManager& connections,
              GetOperation get_operation);

  std::vector<absl::StatusOr<v1::WatchResponse>> View(std::span<const std::string> names) override;
  absl::StatusOr<std::vector<std::string>> Configured(std::string_view collection) override;

 private:
  absl::StatusOr<v1::WatchResponse> ViewOne(const std::string& name) const;

  const PoolManager& pools_;
  const ImageManager& images_;
  const ExportManager& exports_;
  const FilterManager& filters_;
  const ConnectionManager& connections_;
  const GetOperation get_operation_;
};

}  // namespace gabion::service
