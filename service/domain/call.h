// What a change needs to know of the call that asks for it.
#pragma once

#include <string>

namespace gabion::service {

// Made by the front from a checked request; the managers hand it on to whoever writes the effect.
// Plain data.
struct Call {
  bool validate_only = false;  // check all, change nothing
  // The request's name in the log of requests, METHOD/REQUEST_ID; empty: it carries no id, or
  // changes nothing.
  std::string request;
  std::string fingerprint;  // of the request, without its id
};

}  // namespace gabion::service
