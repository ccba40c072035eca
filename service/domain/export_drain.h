// The work of deleting an export: seeing its clients off.
#pragma once

#include <functional>
#include <memory>

#include "gabion/store/v1/records.pb.h"
#include "gabion/v1/export.pb.h"
#include "service/domain/export_serving.h"
#include "service/domain/job.h"
#include "service/domain/manager_context.h"
#include "service/domain/records.h"

namespace gabion::service {

// What becomes of the export when its operation ends. Called under its locks.
struct DrainEnd {
  std::function<void(const v1::Export&)> gone;        // its row is gone
  std::function<void(const v1::Export&)> not_served;  // it was brought back, and cannot be served
};

// The job of KIND_DRAIN: waits as the mode says, stops serving, removes the row. What is asked of
// it can be tightened while it waits (OperationManager::SaveWork()). Cancelling it brings the
// export back. `context` and `end` are copied; `serving` and what they refer to outlive the job.
absl::StatusOr<std::unique_ptr<Job>> NewDrainJob(const ManagerContext& context,
                                                 const ExportServing& serving, DrainEnd end,
                                                 const std::string& operation,
                                                 const v1::JobMetadata& metadata,
                                                 const store::v1::Job& stored);

}  // namespace gabion::service
