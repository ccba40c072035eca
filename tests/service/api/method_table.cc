#include "tests/service/api/method_table.h"

#include <set>
#include <utility>

#include "google/api/resource.pb.h"

namespace gabion::service {
namespace {

bool AnswersResource(const google::protobuf::MethodDescriptor& method) {
  const google::protobuf::Descriptor& answer = *method.output_type();
  return answer.options().HasExtension(google::api::resource) ||
         answer.full_name() == "google.longrunning.Operation";
}

// Of exports and their filters.
std::vector<MethodCase> ExportCases() {
  return {
      {"gabion.v1.ExportService.CreateExport",
       "export_id: 'new' export { source: 'images/a' description: 'text' "
       "block_sizes { minimum_bytes: 8 } access { max_connections: 3 } }",
       "export { description: 'other' }", "export { source: 'images/gone' }"},
      {"gabion.v1.ExportService.GetExport", "name: 'exports/e'"},
      {"gabion.v1.ExportService.ListExports", ""},
      {"gabion.v1.ExportService.UpdateExport",
       "export { name: 'exports/e' description: 'text' block_sizes { minimum_bytes: 8 } }",
       "export { description: 'other' }",
       "export { name: 'exports/f' block_sizes { minimum_bytes: 512 tail: TAIL_REFUSE } }"},
      {"gabion.v1.ExportService.AttachFilter", "name: 'exports/f' entry { spec { log {} } }",
       "entry { bypassed: true }", "entry { entry_id: 'slow' }"},
      {"gabion.v1.ExportService.DetachFilter", "name: 'exports/f' entry_id: 'slow'",
       "allow_missing: true", "entry_id: 'none'"},
      {"gabion.v1.ExportService.DeleteExport", "name: 'exports/f'", "mode: MODE_HARD",
       "name: 'exports/e'"},
      {"gabion.v1.ExportService.GetConnection", "name: 'exports/e/connections/1'"},
      {"gabion.v1.ExportService.ListConnections", "parent: 'exports/e'"},
      {"gabion.v1.ExportService.CloseConnection", "name: 'exports/e/connections/1'",
       "name: 'exports/e/connections/2'", "name: 'exports/e/connections/99'"},
      {"gabion.v1.FilterService.CreateFilter",
       "filter_id: 'new' filter { spec { delay { read { seconds: 1 } } } labels { key: 'k' value: "
       "'v' } }",
       "filter { description: 'other' }", "filter_id: 'slow'"},
      {"gabion.v1.FilterService.GetFilter", "name: 'filters/slow'"},
      {"gabion.v1.FilterService.ListFilters", ""},
      {"gabion.v1.FilterService.UpdateFilter",
       "filter { name: 'filters/slow' description: 'text' spec { delay { read { seconds: 2 } } } }",
       "filter { description: 'other' }", "filter { spec { log {} } }"},
      {"gabion.v1.FilterService.DeleteFilter", "name: 'filters/free'", "allow_missing: true",
       "name: 'filters/slow'"},
  };
}

}  // namespace

MethodKind KindOf(const google::protobuf::MethodDescriptor& method) {
  static const std::set<std::string> readers = {
      "gabion.v1.InspectService.Map",
      "gabion.v1.InspectService.Read",
      "gabion.v1.InspectService.Verify",
      "gabion.v1.InspectService.GetFilterStatistics",
      "gabion.v1.InspectService.Explain",
      "gabion.v1.ServerService.GetServerInfo",
      "gabion.v1.ImageService.MeasureImage",
      "gabion.v1.WatchService.Watch",
      "google.longrunning.Operations.WaitOperation",
  };
  if (readers.contains(method.full_name())) return MethodKind::kReader;
  static const std::vector<std::pair<std::string, MethodKind>> prefixes = {
      {"List", MethodKind::kList},
      {"Create", MethodKind::kCreate},
      {"Update", MethodKind::kUpdate},
      {"Delete", MethodKind::kDelete},
      {"Undelete", MethodKind::kUndelete}};
  for (const auto& [prefix, kind] : prefixes) {
    if (method.name().starts_with(prefix)) return kind;
  }
  if (method.name().starts_with("Get") && AnswersResource(method)) return MethodKind::kGet;
  return MethodKind::kMutator;
}

bool Changes(MethodKind kind) {
  return kind != MethodKind::kGet && kind != MethodKind::kList && kind != MethodKind::kReader;
}

bool HasOurMessages(const google::protobuf::MethodDescriptor& method) {
  return method.input_type()->file()->package() == "gabion.v1";
}

const std::vector<MethodCase>& MethodCases() {
  static const std::vector<MethodCase> cases = [] {
    std::vector<MethodCase> all = {
        {"gabion.v1.PoolService.GetPool", "name: 'pools/default'"},
        {"gabion.v1.PoolService.ListPools", ""},
        {"gabion.v1.ImageService.CreateImage",
         "image_id: 'new' image { raw {} virtual_size_bytes: 1000 labels { key: 'k' value: 'v' } }",
         "image { virtual_size_bytes: 900 }", "image_id: 'a'"},
        {"gabion.v1.ImageService.ImportImage",
         "image_id: 'new' image { raw {} } source_file: 'disk.img'", "move: true",
         "source_file: 'none.img'"},
        {"gabion.v1.ImageService.CloneImage",
         "image_id: 'new' source: 'images/base' labels { key: 'k' value: 'v' }",
         "virtual_size_bytes: 900", "image_id: 'a'"},
        {"gabion.v1.ImageService.ResizeImage", "name: 'images/base' virtual_size_bytes: 2000",
         "virtual_size_bytes: 3000", "virtual_size_bytes: 1"},
        {"gabion.v1.ImageService.CheckImage", "name: 'images/base'", "repair: REPAIR_LEAKS",
         "name: 'images/a'"},
        {"gabion.v1.ImageService.MeasureImage", "image { qcow2 {} virtual_size_bytes: 1000 }"},
        {"gabion.v1.ImageService.GetImage", "name: 'images/a'"},
        {"gabion.v1.ImageService.ListImages", ""},
        {"gabion.v1.ImageService.UpdateImage",
         "image { name: 'images/a' virtual_size_bytes: 2000 labels { key: 'k' value: 'v' } }",
         "image { virtual_size_bytes: 3000 }", "image { virtual_size_bytes: 1 }"},
        {"gabion.v1.ImageService.DeleteImage", "name: 'images/free'", "allow_missing: true",
         "name: 'images/a'"},
        {"gabion.v1.ImageService.UndeleteImage", "name: 'images/gone'", "name: 'images/free'",
         "name: 'images/a'"},
        {"gabion.v1.InspectService.Map", "name: 'images/a'"},
        {"gabion.v1.InspectService.Read", "name: 'images/a' length: 4"},
        {"gabion.v1.InspectService.Write", "name: 'images/a' data: 'x'", "offset: 1",
         "offset: 100000"},
        {"gabion.v1.InspectService.Verify", "name: 'images/a' data: 'x'"},
        {"gabion.v1.InspectService.GetFilterStatistics", "name: 'exports/f'"},
        {"gabion.v1.InspectService.Explain", "name: 'exports/f'"},
        {"gabion.v1.JobService.PauseJob", "name: '$PAUSED'", "name: '$OTHER'", "name: '$DONE'"},
        {"gabion.v1.JobService.ResumeJob", "name: '$PAUSED'", "name: '$OTHER'", "name: '$DONE'"},
        {"gabion.v1.JobService.SetJobRate", "name: '$PAUSED' limit_bytes_per_second: 7",
         "limit_bytes_per_second: 8", "name: '$DONE'"},
        {"gabion.v1.ServerService.GetServerInfo", ""},
        {"gabion.v1.WatchService.Watch", "collections: 'images' send_initial: true", "", "", true},
        {"google.longrunning.Operations.ListOperations", ""},
        {"google.longrunning.Operations.GetOperation", "name: '$PAUSED'"},
        {"google.longrunning.Operations.DeleteOperation", "name: '$DONE'"},
        {"google.longrunning.Operations.CancelOperation", "name: '$PAUSED'"},
        {"google.longrunning.Operations.WaitOperation", "name: '$DONE'", "", "", true},
    };
    for (MethodCase& one : ExportCases()) all.push_back(std::move(one));
    return all;
  }();
  return cases;
}

}  // namespace gabion::service
