#include "service/ctl/render.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/escaping.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/wrappers.pb.h"
#include "google/rpc/code.pb.h"
#include "google/rpc/status.pb.h"

namespace gabion::service::ctl {
namespace {

// `text` as a JSON string. What a server sends need not be UTF-8: then it is shown in base64.
std::string JsonQuote(const std::string& text) {
  google::protobuf::StringValue value;
  value.set_value(text);
  std::string json;
  if (google::protobuf::util::MessageToJsonString(value, &json).ok()) return json;
  return "\"base64:" + absl::Base64Escape(text) + "\"";
}

std::string DetailJson(const google::protobuf::Any& detail) {
  std::string json;
  if (google::protobuf::util::MessageToJsonString(detail, &json).ok()) return json;
  return "{\"@type\":" + JsonQuote(detail.type_url()) +
         ",\"value\":" + JsonQuote(absl::Base64Escape(detail.value())) + "}";
}

}  // namespace

std::string CodeName(int code) {
  return google::rpc::Code_IsValid(code) ? google::rpc::Code_Name(code)
                                         : "CODE_" + std::to_string(code);
}

std::string ToJson(const google::protobuf::Message& message, bool pretty) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = pretty;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) return "{\"undecodable\":" + JsonQuote(status.ToString()) + "}\n";
  if (json.empty() || json.back() != '\n') json += '\n';
  return json;
}

std::string FromJson(std::string_view json, google::protobuf::Message* message) {
  const auto status = google::protobuf::util::JsonStringToMessage(
      google::protobuf::StringPiece(json.data(), json.size()), message);
  return status.ok() ? std::string() : std::string(status.message());
}

std::string ErrorJson(const grpc::Status& status) {
  std::string json = "{\n  \"code\": " + JsonQuote(CodeName(status.error_code())) +
                     ",\n  \"message\": " + JsonQuote(status.error_message());
  google::rpc::Status wire;
  if (wire.ParseFromString(status.error_details()) && wire.details_size() > 0) {
    json += ",\n  \"details\": [";
    for (int i = 0; i < wire.details_size(); ++i) {
      json += (i == 0 ? "\n    " : ",\n    ") + DetailJson(wire.details(i));
    }
    json += "\n  ]";
  }
  return json + "\n}\n";
}

std::string ShellQuote(std::string_view text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-./:@%+,=").find(c) != std::string_view::npos;
  });
  if (plain) return std::string(text);
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

std::string GrpcurlCommand(std::string_view server, std::string_view path, std::string_view json,
                           std::optional<int> timeout_s) {
  constexpr std::string_view kUnix = "unix:";
  std::string command = "grpcurl -plaintext";
  if (timeout_s.has_value()) command += " -max-time " + std::to_string(*timeout_s);
  if (json != "{}") command += " -d " + ShellQuote(json);
  if (server.starts_with(kUnix)) {
    command += " -unix";
    server.remove_prefix(kUnix.size());
    if (server.starts_with("//")) server.remove_prefix(2);  // unix:///PATH
  }
  return command + " " + ShellQuote(server) + " " + ShellQuote(path.substr(1)) + "\n";
}

}  // namespace gabion::service::ctl
