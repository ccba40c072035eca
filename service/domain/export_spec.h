// Exports as the API tells them and as the engine takes them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"

namespace gabion::service {

// What the engine is to serve. REQUIRES: what may be left out has been filled in.
engine::ExportSpec SpecOf(const v1::Export& exported, const engine::ImageSpec& image);

// UNIMPLEMENTED for what the API has words for and this version does not do.
absl::Status CheckIsBuilt(const v1::Export& exported);

v1::EffectiveBlockSizes Tell(const block::EffectiveBlockSizes& sizes,
                             const std::string& export_name, uint64_t generation);

// The URIs under which clients reach the export, given where the engine listens.
std::vector<std::string> UrisOf(const v1::Export& exported, const engine::EngineInfo& engine);

// `text` in a URI: all but unreserved characters (RFC 3986, section 2.3) and those in `also_kept`
// are percent-encoded.
std::string PercentEncode(std::string_view text, std::string_view also_kept);

}  // namespace gabion::service
