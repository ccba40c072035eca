// The files behind images. Every call blocks: it runs on a worker. Errors name the image and carry
// the API's reason.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/io/directory.h"
#include "engine/io/file_lock.h"
#include "engine/io/unique_fd.h"

namespace gabion::engine {

struct OpenedImage {
  io::UniqueFd file;
  io::UniqueFd lock_fd;  // another descriptor of the same open description
  io::FileLock lock;     // over lock_fd; the reader's locks are taken
  FileId id;
};

// Opens the file for reading and, where it lets us, for writing. kFailedPrecondition IMAGE_LOCKED
// if another process holds it, or IMAGE_REPLACED if it carries another image's identity.
absl::StatusOr<OpenedImage> OpenImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          bool direct);

// See Engine for these. StatImageFile() looks only at the file that has the name now.
absl::StatusOr<ImageInfo> CreateImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          ByteCount size);
absl::StatusOr<ImageInfo> ImportImageFile(const io::Directory& pool, const ImageSpec& spec,
                                          const std::string& source_file, bool move);
absl::StatusOr<ImageInfo> StatImageFile(const io::Directory& pool, const ImageSpec& spec);

}  // namespace gabion::engine
