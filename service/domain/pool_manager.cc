#include "service/domain/pool_manager.h"

#include <utility>

#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "service/domain/await.h"
#include "service/domain/engine_errors.h"
#include "service/errors.h"

namespace gabion::service {

absl::Status PoolManager::Open(const std::vector<PoolConfig>& pools) {
  for (const PoolConfig& pool : pools) {
    RETURN_IF_ERROR(Annotate(engine_.AddPool(pool.name, pool.directory), pool.name));
    directories_[pool.name] = pool.directory;
  }
  return absl::OkStatus();
}

absl::Status PoolManager::CheckExists(const std::string& name, std::string_view field) const {
  if (directories_.contains(name)) return absl::OkStatus();
  return NotFound("gabion/Pool", name, field);
}

v1::Pool PoolManager::Describe(const std::string& name) const {
  v1::Pool pool;
  pool.set_name(name);
  const auto info = Await<absl::StatusOr<engine::PoolInfo>>(
      [&](auto done) { engine_.GetPool(name, std::move(done)); });
  if (!info.ok()) {
    EngineCall call;
    call.pool = name;
    pool.set_state(v1::Pool::STATE_UNAVAILABLE);
    *pool.mutable_state_error() = ToRpcStatus(FromEngine(info.status(), call));
    return pool;
  }
  pool.set_state(v1::Pool::STATE_ACTIVE);
  pool.set_size_bytes(info->size.value);
  pool.set_free_bytes(info->available.value);
  pool.mutable_capabilities()->set_direct_io(info->direct_io);
  pool.mutable_capabilities()->set_punch_hole(info->punch_holes);
  return pool;
}

absl::StatusOr<v1::Pool> PoolManager::Get(const std::string& name) const {
  RETURN_IF_ERROR(CheckExists(name, {}));
  return Describe(name);
}

absl::StatusOr<v1::ListPoolsResponse> PoolManager::List(const v1::ListPoolsRequest& request) const {
  ASSIGN_OR_RETURN(const std::string after, tokens_.Open("pools", request.page_token()));
  v1::ListPoolsResponse response;
  const int page_size = PageSize(request.page_size());
  for (auto pool = directories_.upper_bound(after); pool != directories_.end(); ++pool) {
    if (response.pools_size() == page_size) {
      response.set_next_page_token(tokens_.Seal("pools", response.pools(page_size - 1).name()));
      break;
    }
    *response.add_pools() = Describe(pool->first);
  }
  return response;
}

}  // namespace gabion::service
