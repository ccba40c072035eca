// Memory for coroutine frames: free lists by size, one pool per thread, no locks. A frame is freed
// on the thread that allocated it, because a Task lives and dies on one shard.
#pragma once

#include <cstddef>

namespace gabion::runtime {

// Thread-local. Under AddressSanitizer every frame comes from operator new, so that use after free
// is seen.
void* AllocateFrame(std::size_t size);
void FreeFrame(void* frame, std::size_t size);

}  // namespace gabion::runtime
