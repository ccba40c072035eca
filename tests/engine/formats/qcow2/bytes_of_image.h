// The bytes of small qcow2 images, made and changed in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/formats/qcow2/create.h"
#include "engine/formats/qcow2/header.h"

namespace gabion::qcow2::testing {

using ImageFile = std::vector<std::byte>;

// The whole file of a new image.
ImageFile NewImage(const NewImageLayout& layout);

// An image like those of the recipe of the table of verdicts: 1 MiB in clusters of 64 KiB, with an
// entry for a snapshot and one for a bitmap.
ImageFile ImageForVerdicts();

// Big-endian fields.
void Put32(ImageFile& file, std::size_t at, uint32_t value);
void Put64(ImageFile& file, std::size_t at, uint64_t value);

// Where the data of the header extension `type` begins, or 0 if there is none. REQUIRES: version 3.
std::size_t FindExtension(const ImageFile& file, uint32_t type);
// Puts an extension in front of those that the header has, which must have room for it.
void AddExtension(ImageFile& file, uint32_t type, const std::string& data);
// Puts the backing file's name `name` at `at`.
void AddBackingFile(ImageFile& file, std::size_t at, const std::string& name);

ImageFile ReadWhole(const std::string& path);
void WriteWhole(const std::string& path, const ImageFile& file);

// ParseHeader() of a file.
absl::StatusOr<ParsedHeader> Parse(const ImageFile& file, Access access);

}  // namespace gabion::qcow2::testing
