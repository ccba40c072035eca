// Making the files of images, piece by piece. Every call blocks: it runs on a worker, one at a time
// for each image. Errors name the image and carry the API's reason. See Engine for what they do.
#pragma once

#include "absl/status/statusor.h"
#include "engine/image_spec.h"
#include "engine/io/directory.h"

namespace gabion::engine {

absl::StatusOr<BuildProgress> BuildImageFile(const io::Directory& pool, const ImageBuild& build,
                                             ByteOffset from, ByteCount budget);
// Tries it on a file without a name.
absl::Status CheckFileSize(const io::Directory& pool, ByteCount size);
absl::StatusOr<BuildProgress> CheckImageBuild(const io::Directory& pool, const ImageBuild& build);

}  // namespace gabion::engine
