// A raw image: byte n of the disk is byte n of the file.
#pragma once

#include <memory>
#include <string>

#include "engine/base/units.h"
#include "engine/block/node.h"
#include "engine/io/file.h"

namespace gabion::raw {

struct RawOptions {
  // The smallest request that the image wants to see, a power of two up to 64 KiB; the file may ask
  // for more.
  ByteCount request_alignment{1};
  // The image's name: who asked for the alignment, for people.
  std::string name;
};

// A node over `file`, which it owns and closes. Byte-exact size; writable if the file is. Holes of
// the file are zeros without space; data is data, also where it is zero. Ownership and threads: as
// Node says.
//
// Zero() punches a hole if it may, or zeros the range with its space kept, and writes zeros where
// the file can do neither. Discard() punches, or does nothing.
std::unique_ptr<block::Node> NewRawNode(std::unique_ptr<io::File> file, const RawOptions& options);

}  // namespace gabion::raw
