#include "service/domain/server_info.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "service/domain/identity.h"

namespace gabion::service {

ServerInfoSource::ServerInfoSource(const engine::Engine& engine, v1::ServerInfo facts)
    : engine_(engine), facts_(std::move(facts)) {
  *facts_.mutable_start_time() = Now();
}

void ServerInfoSource::SetGrpcAddresses(const std::vector<std::string>& addresses) {
  const std::lock_guard lock(mutex_);
  facts_.mutable_grpc_addresses()->Assign(addresses.begin(), addresses.end());
}

absl::StatusOr<v1::ServerInfo> ServerInfoSource::Get() const {
  v1::ServerInfo info;
  {
    const std::lock_guard lock(mutex_);
    info = facts_;
  }
  const engine::EngineInfo engine = engine_.info();
  info.set_io_driver(engine.io_driver);
  info.set_shard_count(engine.shards);
  if (!engine.nbd_unix_path.empty()) {
    info.add_nbd_addresses(absl::StrCat("unix:", engine.nbd_unix_path));
  }
  if (!engine.nbd_tcp_address.empty()) info.add_nbd_addresses(engine.nbd_tcp_address);
  return info;
}

}  // namespace gabion::service
