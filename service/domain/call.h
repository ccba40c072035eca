// What a change needs to know of the call that asks for it.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

namespace gabion::service {

// How long somebody waits for what others hold. By default, however long it takes. Plain data;
// whoever makes it sees to it that `gone` outlives the wait.
struct Patience {
  using Clock = std::chrono::steady_clock;
  Clock::time_point until = Clock::time_point::max();
  const std::atomic<bool>* gone = nullptr;  // true once nobody wants the answer any more
};

// Made by the front from a checked request; the managers hand it on to whoever writes the effect.
// Plain data.
struct Call {
  bool validate_only = false;  // check all, change nothing
  // The request's name in the log of requests, METHOD/REQUEST_ID; empty: it carries no id, or
  // changes nothing.
  std::string request;
  std::string fingerprint;  // of the request, without its id
  Patience patience;        // with other calls that change the same
};

}  // namespace gabion::service
