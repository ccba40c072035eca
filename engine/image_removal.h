// Removing the files of images, piece by piece. Every call blocks: it runs on a worker, one at a
// time for each image. Errors name the image and carry the API's reason. See Engine for what they
// do.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/image_spec.h"
#include "engine/io/directory.h"

namespace gabion::engine {

absl::StatusOr<RemovalProgress> RemoveImageFile(const io::Directory& pool, const ImageSpec& spec,
                                                ByteCount budget);
absl::Status CheckImageRemoval(const io::Directory& pool, const ImageSpec& spec);
absl::StatusOr<std::vector<std::string>> SweepWorkFiles(const io::Directory& pool,
                                                        const std::vector<std::string>& keep_uids);

}  // namespace gabion::engine
