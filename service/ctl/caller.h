// One call of any method that takes one request.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/status.h"

namespace gabion::service::ctl {

// Calls `method` at `server` ("unix:PATH" or "HOST:PORT", in plaintext) and hands each answer to
// `on_response`. Blocks until the call has ended; returns how it ended.
// REQUIRES: `request` is of the method's input type; the method is not client-streaming.
grpc::Status Call(const std::string& server, const google::protobuf::MethodDescriptor& method,
                  const google::protobuf::Message& request,
                  std::optional<std::chrono::seconds> timeout,
                  const std::function<void(const google::protobuf::Message&)>& on_response);

}  // namespace gabion::service::ctl
