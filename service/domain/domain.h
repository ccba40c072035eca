// The resources of the daemon and what can be done with them: no gRPC, any front.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/log.h"
#include "engine/engine.h"
#include "service/domain/change_feed.h"
#include "service/domain/condition_log.h"
#include "service/domain/connection_manager.h"
#include "service/domain/domain_views.h"
#include "service/domain/export_index.h"
#include "service/domain/export_manager.h"
#include "service/domain/filter_attachments.h"
#include "service/domain/filter_manager.h"
#include "service/domain/image_manager.h"
#include "service/domain/image_watch.h"
#include "service/domain/inspector.h"
#include "service/domain/intents.h"
#include "service/domain/maintenance.h"
#include "service/domain/manager_context.h"
#include "service/domain/observer.h"
#include "service/domain/operation_manager.h"
#include "service/domain/page_token.h"
#include "service/domain/pool_manager.h"
#include "service/domain/request_log.h"
#include "service/domain/resource_locks.h"
#include "service/domain/server_info.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

struct DomainOptions {
  std::vector<PoolConfig> pools;
  ExportOptions exports;
  OperationOptions operations;
  MaintenanceOptions maintenance;
  ImageWatchOptions image_watch;
  v1::ServerInfo facts;  // see ServerInfoSource
  bool allow_fault_filters = false;
};

// The managers, and what they share. Its calls block: make them on the executor. Owned by the
// program; the accessors and what they return may be used by any thread.
class Domain {
 public:
  // Opens the pools, finishes or undoes what the last run left unfinished, serves every export
  // again, and goes on with operations. All references outlive the domain.
  static absl::StatusOr<std::unique_ptr<Domain>> Open(engine::Engine& engine, MetadataStore& store,
                                                      Logger& logger, DomainOptions options);
  // As Stop().
  ~Domain() { Stop(); }
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  PoolManager& pools() { return pools_; }
  ImageManager& images() { return images_; }
  ExportManager& exports() { return exports_; }
  FilterManager& filters() { return filters_; }
  ConnectionManager& connections() { return connections_; }
  Inspector& inspector() { return inspector_; }
  OperationManager& operations() { return operations_; }
  RequestLog& requests() { return requests_; }
  Maintenance& maintenance() { return maintenance_; }
  ImageWatch& image_watch() { return image_watch_; }
  MetadataStore& store() { return context_.store; }
  ChangeFeed& feed() { return feed_; }
  ResourceViews& views() { return views_; }
  ServerInfoSource& server_info() { return server_info_; }

  // Ends what runs in the background. Call when no call is under way any more, before the engine
  // stops.
  void Stop();

 private:
  Domain(engine::Engine& engine, MetadataStore& store, Logger& logger, std::string token_key,
         DomainOptions options);

  // Has the engine tell the observer of its connections.
  void Observe();

  ChangeFeed feed_;
  ResourceLocks locks_;
  ImageChains chains_;
  FilterAttachments attachments_;
  ExportIndex index_{attachments_};
  PageTokens tokens_;
  RequestLog requests_;
  OperationManager operations_;
  Intents intents_;
  ConditionLog conditions_;
  ManagerContext context_;
  PoolManager pools_;
  ImageManager images_;
  ExportManager exports_;
  FilterManager filters_;
  ConnectionManager connections_;
  Inspector inspector_;
  ServerInfoSource server_info_;
  Maintenance maintenance_;
  DomainViews views_;
  ConnectionObserver observer_;
  ImageWatch image_watch_;
};

}  // namespace gabion::service
