#include "engine/runtime/frame_pool.h"

#include <array>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GABION_POOL_FRAMES 0
#else
#define GABION_POOL_FRAMES 1
#endif

namespace gabion::runtime {

#if GABION_POOL_FRAMES
namespace {

constexpr std::size_t kStep = 64;
constexpr std::size_t kClasses = 32;            // frames up to 2 KiB are pooled
constexpr std::size_t kMaxFreePerClass = 1024;  // bounds what an idle thread keeps

struct FreeFrameNode {
  FreeFrameNode* next;
};

struct Pool {
  struct List {
    FreeFrameNode* head = nullptr;
    std::size_t length = 0;
  };
  std::array<List, kClasses> lists;

  ~Pool() {
    for (List& list : lists) {
      while (list.head != nullptr) {
        FreeFrameNode* next = list.head->next;
        ::operator delete(list.head);
        list.head = next;
      }
    }
  }
};

Pool& ThreadPool() {
  thread_local Pool pool;
  return pool;
}

constexpr std::size_t ClassOf(std::size_t size) { return (size + kStep - 1) / kStep - 1; }

}  // namespace

void* AllocateFrame(std::size_t size) {
  const std::size_t size_class = ClassOf(size);
  if (size_class >= kClasses) return ::operator new(size);
  Pool::List& list = ThreadPool().lists[size_class];
  if (list.head == nullptr) return ::operator new((size_class + 1) * kStep);
  FreeFrameNode* node = list.head;
  list.head = node->next;
  --list.length;
  return node;
}

void FreeFrame(void* frame, std::size_t size) {
  const std::size_t size_class = ClassOf(size);
  if (size_class >= kClasses) return ::operator delete(frame);
  Pool::List& list = ThreadPool().lists[size_class];
  if (list.length >= kMaxFreePerClass) return ::operator delete(frame);
  list.head = new (frame) FreeFrameNode{list.head};
  ++list.length;
}

#else

void* AllocateFrame(std::size_t size) { return ::operator new(size); }
void FreeFrame(void* frame, std::size_t) { ::operator delete(frame); }

#endif

}  // namespace gabion::runtime
