// The work of operations that look after an image: checking, changing its size.
#pragma once

#include <memory>

#include "gabion/store/v1/records.pb.h"
#include "service/domain/job.h"
#include "service/domain/manager_context.h"

namespace gabion::service {

// The job of KIND_CHECK: one check in the data plane, which starts anew after a restart. A repair
// that is cancelled leaves the image as sound as it was, or sounder. `context` is copied; what it
// refers to outlives the job.
absl::StatusOr<std::unique_ptr<Job>> NewCheckJob(const ManagerContext& context,
                                                 const v1::JobMetadata& metadata,
                                                 const store::v1::Job& stored);

// The job of KIND_RESIZE: the file first, then the row. Cancelling it does nothing.
absl::StatusOr<std::unique_ptr<Job>> NewResizeJob(const ManagerContext& context,
                                                  const v1::JobMetadata& metadata,
                                                  const store::v1::Job& stored);

}  // namespace gabion::service
