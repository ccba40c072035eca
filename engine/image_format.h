// What the bytes of an image's file mean, as far as its resource says how to read them. Calls
// block; any thread.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/qcow2/create.h"
#include "engine/formats/qcow2/header.h"
#include "engine/image_spec.h"

namespace gabion::engine {

// The header of the qcow2 file behind `fd`, which has `size` bytes. kInvalidArgument
// FORMAT_MISMATCH: that is no qcow2 file; kFailedPrecondition FEATURE_UNSUPPORTED: it needs
// something that Gabion does not have, which the metadata `feature` names; kDataLoss IMAGE_CORRUPT:
// its header makes no sense.
absl::StatusOr<qcow2::Header> ReadQcow2Header(int fd, ByteCount size, const ImageSpec& spec);

// What the format's own errors are to callers: FEATURE_UNSUPPORTED, IMAGE_CORRUPT.
absl::Status FormatError(const absl::Status& status, const ImageSpec& spec);

// What it says, for people.
Qcow2Info InfoOf(const qcow2::Header& header);

// Size of the disk, and for qcow2 what the file says of itself, of the image in the file behind
// `fd`, which has `size` bytes; a raw image has them all.
absl::Status DescribeImage(int fd, ByteCount size, const ImageSpec& spec, ImageInfo& info);

// What a new qcow2 file consists of. kInvalidArgument: the options cannot work together.
absl::StatusOr<qcow2::NewImageLayout> LayoutOf(const ImageBuild& build);

// Whether the qcow2 file with `header` can become the image of `build`: its backing file must be
// where the image's resource says it is. Errors say what is wrong with it.
absl::Status CheckImportable(const qcow2::Header& header, const ImageBuild& build);

// Makes the qcow2 file behind `fd` name the image's backing file, and no other. Not for files that
// are in use.
absl::Status WriteBackingName(int fd, const ImageSpec& spec);

}  // namespace gabion::engine
