// Driving a reactor from a test.
#pragma once

#include <type_traits>

#include "engine/runtime/reactor.h"
#include "engine/runtime/task.h"

namespace gabion::test {

// Runs the loop until `task` is done; its result.
template <typename T>
T Finish(runtime::Reactor& reactor, Task<T> task) {
  while (!task.done()) reactor.RunTurn(true);
  if constexpr (!std::is_void_v<T>) return task.Take();
}

}  // namespace gabion::test
