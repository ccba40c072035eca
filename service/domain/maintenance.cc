#include "service/domain/maintenance.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace gabion::service {
namespace {

// Revisions: commits wait for a transaction of this size.
constexpr uint64_t kTrimmedAtOnce = 4096;

}  // namespace

Maintenance::Maintenance(MetadataStore& store, RequestLog& requests, OperationManager& operations,
                         Logger& logger, MaintenanceOptions options)
    : store_(store),
      requests_(requests),
      operations_(operations),
      logger_(logger),
      options_(options),
      thread_([this] { Loop(); }) {}

Maintenance::~Maintenance() { Stop(); }

void Maintenance::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_one();
  if (thread_.joinable()) thread_.join();
}

absl::Status Maintenance::Run() {
  RETURN_IF_ERROR(requests_.Expire(options_.keep_requests));
  RETURN_IF_ERROR(operations_.Expire(options_.keep_operations));
  return TrimChanges();
}

absl::Status Maintenance::TrimChanges() {
  ASSIGN_OR_RETURN(const uint64_t revision, store_.Revision());
  ASSIGN_OR_RETURN(uint64_t trimmed, store_.OldestRevision());
  const uint64_t target = revision - std::min(revision, options_.keep_changes);
  while (trimmed < target) {
    trimmed = std::min(target, trimmed + kTrimmedAtOnce);
    RETURN_IF_ERROR(store_.TrimChanges(trimmed));
  }
  return absl::OkStatus();
}

void Maintenance::Loop() {
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, options_.every, [this] { return stopping_; })) {
    lock.unlock();
    const absl::Status status = Run();
    if (!status.ok()) {
      logger_.Log(LogLevel::kError, "maintenance",
                  absl::StrCat("Old entries could not be forgotten: ", status.ToString()));
    }
    lock.lock();
  }
}

}  // namespace gabion::service
