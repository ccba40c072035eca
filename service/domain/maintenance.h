// What the daemon forgets, and when.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "engine/base/log.h"
#include "service/domain/operation_manager.h"
#include "service/domain/request_log.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

struct MaintenanceOptions {
  std::chrono::seconds every{60};
  std::chrono::seconds keep_requests{std::chrono::hours(24)};  // api: at least 24 h
  // After their end; longer than requests, which they answer.
  std::chrono::seconds keep_operations{std::chrono::hours(24 * 30)};
  uint64_t keep_changes = 100'000;  // revisions of the change log
};

// Forgets requests, operations and changes that are older than that, now and then on a thread of
// its own. Owned by the domain; any thread.
class Maintenance {
 public:
  // All of them outlive this.
  Maintenance(MetadataStore& store, RequestLog& requests, OperationManager& operations,
              Logger& logger, MaintenanceOptions options);
  // As Stop().
  ~Maintenance();
  Maintenance(const Maintenance&) = delete;
  Maintenance& operator=(const Maintenance&) = delete;

  // Once, now; blocks.
  absl::Status Run();
  void Stop();

 private:
  absl::Status TrimChanges();
  void Loop();

  MetadataStore& store_;
  RequestLog& requests_;
  OperationManager& operations_;
  Logger& logger_;
  const MaintenanceOptions options_;
  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace gabion::service
