// Pure operations on lists of extents: clip, shift, stack a layer on its backing image.
#pragma once

#include "engine/base/units.h"
#include "engine/block/extent.h"

namespace gabion::block {

// The bytes that a list covers, from its first to its last extent; empty at 0 for an empty list.
ByteRange Covered(const ExtentList& list);

// The part of `extent` within `range`; its host offset moves along. Empty if they do not meet.
Extent ClipExtent(const Extent& extent, ByteRange range);

// The parts of `list` within `range`.
ExtentList Clip(const ExtentList& list, ByteRange range);

// `list` moved so that the byte at `from` comes to `to`; host offsets stay. A window into a disk
// answers so. REQUIRES: `from` is not behind the start of the list.
ExtentList Shift(ExtentList list, ByteOffset from, ByteOffset to);

// `list` as it is seen from above `layers` more layers: what is allocated gets deeper by that.
ExtentList Deepen(ExtentList list, uint32_t layers);

// Appends all of `tail`, which starts where `list` ends.
void AppendExtents(ExtentList& list, const ExtentList& tail);

// What a chain of a layer over its backing image answers. `top` is the layer's own view, where
// kUnallocated means: look below. `backing` is the backing chain's view in its own numbering (its
// layers count from 1) and starts at or before `top`; `backing_size` is the exact size of the
// backing image. Unallocated bytes past that size are zeros of the backing image's layer and never
// of a deeper one (status rule S-5). The answer covers a prefix of `top`: it ends where an
// unallocated byte is reached that `backing` does not cover.
ExtentList Overlay(const ExtentList& top, const ExtentList& backing, ByteCount backing_size);

}  // namespace gabion::block
