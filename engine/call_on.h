// Calls across shards: a coroutine runs where its data lives, its result goes on where it was asked
// for.
#pragma once

#include <type_traits>
#include <utility>

#include "engine/runtime/event.h"
#include "engine/runtime/shard.h"
#include "engine/runtime/task.h"
#include "engine/runtime/task_set.h"

namespace gabion::engine {
namespace internal {

template <typename T, typename F>
Task<void> RunAndReply(runtime::Shard* home, F* start, runtime::OneShot<T>* reply) {
  Task<T> task = (*start)();
  T result = co_await task;
  home->Post([reply, result = std::move(result)]() mutable { reply->Set(std::move(result)); });
}

}  // namespace internal

// `start` is a plain function object that returns a Task; it is called on `target`, where `tasks`
// keeps the running call. It and what it refers to stay valid until then: they live in this call's
// frame, or longer.
template <typename F>
Task<typename std::invoke_result_t<F&>::value_type> CallOn(runtime::Shard& home,
                                                           runtime::Shard& target,
                                                           runtime::TaskSet& tasks, F start) {
  using T = typename std::invoke_result_t<F&>::value_type;
  if (&home == &target) {
    Task<T> task = start();
    T result = co_await task;
    co_return result;
  }
  runtime::OneShot<T> reply(home.reactor().ready());
  target.Post([&home, &tasks, call = &start, answer = &reply] {
    tasks.Add(internal::RunAndReply<T, F>(&home, call, answer));
  });
  T result = co_await reply;
  co_return result;
}

}  // namespace gabion::engine
