// JSON and shell text for people and scripts.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "google/protobuf/message.h"
#include "grpcpp/support/status.h"

namespace gabion::service::ctl {

// "NOT_FOUND"; "CODE_99" for numbers that mean nothing.
std::string CodeName(int code);

// `message` as JSON, in one line unless `pretty`. Fields at their default value are left out.
std::string ToJson(const google::protobuf::Message& message, bool pretty);

// Reads JSON into *message; returns what is wrong with it, or nothing.
std::string FromJson(std::string_view json, google::protobuf::Message* message);

// {"code": "NOT_FOUND", "message": ..., "details": [...]}; details are decoded where their type is
// known and shown in base64 where it is not.
std::string ErrorJson(const grpc::Status& status);

// `text` as one word of a POSIX shell.
std::string ShellQuote(std::string_view text);

// The call as a command line of grpcurl. `path`: "/SERVICE/METHOD".
std::string GrpcurlCommand(std::string_view server, std::string_view path, std::string_view json,
                           std::optional<int> timeout_s);

}  // namespace gabion::service::ctl
