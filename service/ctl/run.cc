#include "service/ctl/run.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <istream>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>

#include "grpc/health/v1/health.pb.h"
#include "service/ctl/caller.h"
#include "service/ctl/catalog.h"
#include "service/ctl/command.h"
#include "service/ctl/render.h"

namespace gabion::service::ctl {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

constexpr std::chrono::seconds kUnaryTimeout(30);

int Refuse(const std::string& problem, std::ostream& err) {
  err << "gabionctl: " << problem << "\n";
  return kUsage;
}

std::string ReadAll(std::istream& in) { return {std::istreambuf_iterator<char>(in), {}}; }

// The JSON text that REQUEST stands for.
std::optional<std::string> ReadRequest(const std::string& request, std::istream& in,
                                       std::ostream& err) {
  if (request == "-") return ReadAll(in);
  if (!request.starts_with('@')) return request;
  std::ifstream file(request.substr(1));
  if (!file) {
    Refuse("cannot read " + request.substr(1) + ": " + std::strerror(errno), err);
    return std::nullopt;
  }
  return ReadAll(file);
}

std::optional<std::chrono::seconds> TimeoutOf(const Command& command,
                                              const MethodDescriptor& method) {
  if (command.timeout_s == 0) return std::nullopt;
  if (command.timeout_s) return std::chrono::seconds(*command.timeout_s);
  return method.server_streaming() ? std::nullopt : std::optional(kUnaryTimeout);
}

// Prints how a call failed; returns the exit status.
int ReportError(const Command& command, const grpc::Status& status, std::ostream& err) {
  err << ErrorJson(status);
  if (status.error_code() == grpc::UNAVAILABLE && status.error_details().empty()) {
    err << "gabionctl: no answer from " << command.server << "; does gabiond listen there?\n";
  }
  return status.error_code();
}

int RunCall(const Command& command, std::istream& in, std::ostream& out, std::ostream& err) {
  const MethodDescriptor* method = FindMethod(command.target);
  if (method == nullptr) {
    return Refuse("there is no method " + command.target + "; see gabionctl list", err);
  }
  if (method->client_streaming()) {
    return Refuse(command.target + " takes a stream of requests, which call cannot send", err);
  }
  const std::optional<std::string> json = ReadRequest(command.request, in, err);
  if (!json) return kUsage;
  const std::unique_ptr<Message> request(google::protobuf::MessageFactory::generated_factory()
                                             ->GetPrototype(method->input_type())
                                             ->New());
  const std::string problem = FromJson(*json, request.get());
  if (!problem.empty()) {
    return Refuse("the request is no " + method->input_type()->full_name() + ": " + problem +
                      "; see gabionctl describe " + command.target,
                  err);
  }
  if (command.print_grpcurl) {
    out << GrpcurlCommand(command.server, PathOf(*method), *json, command.timeout_s);
    return 0;
  }
  const bool pretty = !method->server_streaming();
  const grpc::Status status =
      Call(command.server, *method, *request, TimeoutOf(command, *method),
           [&](const Message& response) { out << ToJson(response, pretty) << std::flush; });
  return status.ok() ? 0 : ReportError(command, status, err);
}

int RunHealth(const Command& command, std::ostream& out, std::ostream& err) {
  using grpc::health::v1::HealthCheckResponse;
  const MethodDescriptor& method = *FindMethod("grpc.health.v1.Health/Check");
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(command.target);
  if (command.print_grpcurl) {
    const std::string json = ToJson(request, false);
    out << GrpcurlCommand(command.server, PathOf(method), json.substr(0, json.find('\n')),
                          command.timeout_s);
    return 0;
  }
  auto health = HealthCheckResponse::UNKNOWN;
  const grpc::Status status = Call(
      command.server, method, request, TimeoutOf(command, method), [&](const Message& response) {
        health = static_cast<const HealthCheckResponse&>(response).status();
      });
  if (!status.ok()) return ReportError(command, status, err);
  out << HealthCheckResponse::ServingStatus_Name(health) << "\n";
  return health == HealthCheckResponse::SERVING ? 0 : kNotServing;
}

int RunDescribe(const Command& command, std::ostream& out, std::ostream& err) {
  const std::string text = DescribeText(command.target);
  if (text.empty()) {
    return Refuse("there is no service, method, message or enum " + command.target, err);
  }
  out << text;
  return 0;
}

}  // namespace

int Run(const std::vector<std::string>& arguments,
        const std::map<std::string, std::string>& environment, std::istream& in, std::ostream& out,
        std::ostream& err) {
  std::string problem;
  const std::optional<Command> command = ParseCommand(arguments, environment, &problem);
  if (!command) return Refuse(problem, err);
  switch (command->kind) {
    case Command::Kind::kHelp:
      out << HelpText();
      return 0;
    case Command::Kind::kVersion:
      out << "gabionctl " GABION_VERSION "\n";
      return 0;
    case Command::Kind::kList:
      out << ListText();
      return 0;
    case Command::Kind::kDescribe:
      return RunDescribe(*command, out, err);
    case Command::Kind::kCall:
      return RunCall(*command, in, out, err);
    case Command::Kind::kHealth:
      return RunHealth(*command, out, err);
  }
  return kUsage;
}

}  // namespace gabion::service::ctl
