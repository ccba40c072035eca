// The event loop of one shard. A turn: take what has completed, run what is ready, then let
// everybody send and submit what the turn has gathered, at once. Before it sleeps, the loop polls
// for a short while, longer when that has been paying.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "engine/runtime/clock.h"
#include "engine/runtime/ready_queue.h"

namespace asio {
class io_context;
}

namespace gabion::runtime {

// A source of completions besides sockets and timers: an I/O ring, a mailbox.
class Poller {
 public:
  // Handles what has completed, without a system call where possible. True if there was anything.
  virtual bool Poll() = 0;
  // Readable when Poll() would find something. Watched while the loop sleeps.
  virtual int wake_fd() const = 0;
  // Called before the loop sleeps. False if Poll() would find something by now.
  virtual bool PrepareToSleep() { return true; }

 protected:
  ~Poller() = default;
};

// Called once at the end of the turn in which it was asked for.
class TurnHook {
 public:
  virtual void OnTurnEnd() = 0;

 protected:
  ~TurnHook() = default;
};

// Owned by its shard. Everything but construction and destruction happens on the thread that calls
// Run().
class Reactor {
 public:
  struct Options {
    // How long to look for work before sleeping, at most; 0 to 1 ms. Costs CPU while idle only
    // right after work.
    Duration poll_before_sleep = std::chrono::microseconds(50);
  };

  explicit Reactor(Options options);
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  ReadyQueue& ready();
  Clock& clock();
  // For the files that speak to sockets (io/asio_stream).
  asio::io_context& io_context();

  // `poller` is polled in every turn until RemovePoller().
  void AddPoller(Poller& poller);
  void RemovePoller(Poller& poller);

  // `hook.OnTurnEnd()` runs once at the end of this turn; asking again in the same turn has no
  // effect on a hook that is still waiting: callers remember that they asked. A hook must not be
  // destroyed while it waits.
  void AtTurnEnd(TurnHook& hook);

  // Runs turns until Stop(). Run() can be called again afterwards.
  void Run();
  void Stop();

  // Runs one turn, without sleeping if `may_sleep` is false. True if anything happened. Run() is a
  // loop around it; tests use it to drive a loop by hand.
  bool RunTurn(bool may_sleep);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gabion::runtime
