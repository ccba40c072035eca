// The work of image operations: making a file, removing one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "gabion/store/v1/records.pb.h"
#include "gabion/v1/image.pb.h"
#include "service/domain/job.h"
#include "service/domain/manager_context.h"
#include "service/domain/records.h"

namespace gabion::service {

// Called when an image that stood on `backing` is no more.
using ImageReleased = std::function<void(const std::string& backing)>;

// What the engine is asked to make for `image`.
absl::StatusOr<engine::ImageBuild> BuildOf(const Records<v1::Image>& records,
                                           const v1::Image& image,
                                           const store::v1::BuildWork& work);

// Where a request says what may be at fault when `work` fails for `image`.
absl::Status BuildError(const absl::Status& status, const v1::Image& image,
                        const store::v1::BuildWork& work);

// The jobs of KIND_CREATE and KIND_IMPORT: the file is made piece by piece, then the image is
// STATE_ACTIVE; one that fails or is cancelled takes file and row away again. Only a file that has
// been moved stays, as an active image: it is the caller's. `context` is copied; what it refers to
// outlives the job.
absl::StatusOr<std::unique_ptr<Job>> NewBuildJob(const ManagerContext& context,
                                                 const v1::JobMetadata& metadata,
                                                 const store::v1::Job& stored,
                                                 ImageReleased released);

// The job of KIND_DELETE: the file is removed piece by piece, then the row. There is no way back:
// cancelling it does nothing.
absl::StatusOr<std::unique_ptr<Job>> NewRemovalJob(const ManagerContext& context,
                                                   const v1::JobMetadata& metadata,
                                                   const store::v1::Job& stored,
                                                   ImageReleased released);

}  // namespace gabion::service
