#include "tests/engine/formats/qcow2/check_testing.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/formats/qcow2/layout.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"

namespace gabion::qcow2::testing {
namespace {

void MustRun(const std::string& command) {
  const CommandResult result = RunCommand(command);
  if (result.exit_status == 0) return;
  std::fprintf(stderr, "%s: %s\n", command.c_str(), result.output.c_str());
  CHECK_EQ(result.exit_status, 0);
}

std::vector<Recipe> AllRecipes() {
  const std::vector<std::string> writes = {"io w -P1 0 64k", "io w -P2 1M 300k",
                                           "io w -P3 2500k 7k", "io w -z 512k 128k",
                                           "io w -P4 200k 100k"};
  std::vector<std::string> snapshots = writes;
  for (const char* step :
       {"img snapshot -c s1 %", "io w -P5 0 128k", "img snapshot -c s2 %", "io w -P6 1M 64k",
        "io discard 2M 1M", "img snapshot -d s2 %", "img snapshot -c s3 %"}) {
    snapshots.push_back(step);
  }
  std::vector<std::string> all = snapshots;
  all.insert(all.begin(), "img bitmap --add -f qcow2 % b0");
  for (const char* step : {"io w -c -P7 3M 64k", "io w -c -P8 3136k 64k",
                           "img bitmap --add -f qcow2 -g 4096 % b1", "io w -P9 1500k 64k"}) {
    all.push_back(step);
  }
  std::vector<std::string> large = all;  // compressed clusters are written as a whole
  for (std::string& step : large) {
    if (step == "io w -c -P7 3M 64k") step = "io w -c -P7 4M 2M";
    if (step == "io w -c -P8 3136k 64k") step = "io w -c -P8 6M 2M";
  }
  std::vector<Recipe> recipes = {
      {"Empty", "", "4M", {}},
      {"Defaults", "", "4M", writes},
      {"Version2", "compat=0.10", "4M", snapshots},
      {"Everything64K", "", "4M", all},
      {"Everything4K", "cluster_size=4096", "4M", all},
      {"Everything512", "cluster_size=512", "4M", all},
      {"Everything2M", "cluster_size=2M", "64M", large},
      {"Zstd", "compression_type=zstd", "4M", all},
      {"Extended", "extended_l2=on", "4M", all},
      {"Extended16K", "extended_l2=on,cluster_size=16k", "4M", all},
      {"LazyRefcounts", "lazy_refcounts=on", "4M", all},
      {"PreallocatedMetadata", "preallocation=metadata", "4M", writes},
      {"OddSize", "cluster_size=4096", "4097k", writes},
  };
  for (const int bits : {1, 2, 4, 8, 16, 32, 64}) {
    recipes.push_back({absl::StrCat("Refcounts", bits),
                       absl::StrCat("cluster_size=4096,refcount_bits=", bits), "4M",
                       bits == 1 ? writes : snapshots});
  }
  return recipes;
}

}  // namespace

const std::vector<Recipe>& Recipes() {
  static const std::vector<Recipe>& recipes = *new std::vector<Recipe>(AllRecipes());
  return recipes;
}

Recipe SmallImage(const std::string& options) {
  return {"Small",
          options,
          "1M",
          {"io w -P1 0 64k", "io w -P2 64k 64k", "io w -c -P3 128k 64k", "io w -z 192k 64k"}};
}

uint64_t QemuVerdict::Field(const std::string& name) const {
  const uint64_t value = NumberAfter(output, absl::StrCat("\"", name, "\": "));
  return value == ~uint64_t{0} ? 0 : value;
}

std::string QemuVerdict::Tail() const {
  const std::size_t kept = 1000;
  return absl::StrCat("\nQEMU: ", output.substr(output.size() - std::min(kept, output.size())));
}

ImageFile QemuFolder::Make(const Recipe& recipe) {
  static auto& made = *new std::map<std::string, ImageFile>();  // QEMU syncs often
  const auto [place, is_new] = made.try_emplace(recipe.name + recipe.options);
  if (!is_new) return place->second;
  const std::string file = folder_.File("image.qcow2");
  const std::string options = recipe.options.empty() ? "" : absl::StrCat(" -o ", recipe.options);
  MustRun(absl::StrCat("qemu-img create -f qcow2", options, " ", file, " ", recipe.size));
  for (const std::string& step : recipe.steps) {
    const std::string filled = absl::StrReplaceAll(step, {{"%", file}});
    if (filled.compare(0, 3, "io ") == 0) {
      MustRun(absl::StrCat("qemu-io -f qcow2 -c '", filled.substr(3), "' ", file));
    } else {
      MustRun(absl::StrCat("qemu-", filled));
    }
  }
  place->second = ReadWhole(file);
  return place->second;
}

QemuVerdict QemuFolder::Check(const ImageFile& image, const std::string& arguments) {
  const std::string file = folder_.File("checked.qcow2");
  WriteWhole(file, image);
  const CommandResult result =
      RunCommand(absl::StrCat("qemu-img check -f qcow2 --output=json ", arguments, " ", file));
  return {result.exit_status, result.output};
}

std::vector<ImageFile> QemuFolder::Contents(const ImageFile& image,
                                            const std::vector<std::string>& snapshots) {
  const std::string file = folder_.File("read.qcow2");
  const std::string raw = folder_.File("read.raw");
  WriteWhole(file, image);
  std::vector<ImageFile> contents;
  MustRun(absl::StrCat("qemu-img convert -f qcow2 -O raw ", file, " ", raw));
  contents.push_back(ReadWhole(raw));
  for (const std::string& snapshot : snapshots) {
    MustRun(absl::StrCat("qemu-img convert -f qcow2 -l snapshot.name=", snapshot, " -O raw ", file,
                         " ", raw));
    contents.push_back(ReadWhole(raw));
  }
  return contents;
}

absl::StatusOr<CheckResult> Check(ImageFile& image, const CheckOptions& options) {
  const auto parsed = Parse(image, Access::kRead);
  if (!parsed.ok()) return parsed.status();
  test::MemoryFile file(image.size());
  file.bytes() = image;
  absl::StatusOr<CheckResult> result = CheckImage(file, parsed->header, options, nullptr).Take();
  image = file.bytes();
  CHECK(file.synced());
  return result;
}

CheckResult Verdict(const ImageFile& image, const CheckOptions& options) {
  ImageFile copy = image;
  CheckOptions only_look = options;
  only_look.repair = Repair::kNone;
  absl::StatusOr<CheckResult> result = Check(copy, only_look);
  if (!result.ok()) std::fprintf(stderr, "%s\n", std::string(result.status().message()).c_str());
  CHECK(result.ok());
  CHECK(copy == image);
  return std::move(result).value();
}

std::string Text(const CheckResult& result) {
  std::string text = absl::StrCat("corruptions ", result.corruptions, ", leaks ", result.leaks,
                                  ", check errors ", result.check_errors, ", fixed ",
                                  result.corruptions_fixed, " and ", result.leaks_fixed);
  int shown = 0;
  for (const Finding& finding : result.findings) {
    if (finding.kind == FindingKind::kLeak && ++shown > 5) continue;
    absl::StrAppend(&text, "\n  ", std::string(NameOf(finding.kind)), " at ",
                    finding.host_offset.value_or(~uint64_t{0}), " for ",
                    finding.guest_offset.value_or(~uint64_t{0}), ": ", finding.text);
  }
  return text;
}

uint64_t Get64(const ImageFile& file, std::size_t at) {
  CHECK(at + 8 <= file.size());
  return LoadBe64(&file[at]);
}

Places::Places(const ImageFile& image)
    : l1(Get64(image, kL1OffsetField)),
      l2(Get64(image, l1) & kOffsetMask),
      refcount_table(Get64(image, kRefcountTableOffsetField)),
      refcount_block(Get64(image, refcount_table)),
      snapshots(Get64(image, kSnapshotsOffsetField)) {
  const bool extended = LoadBe32(&image[kVersionField]) >= 3 &&
                        (Get64(image, kIncompatibleField) & kIncompatibleExtendedL2) != 0;
  if (extended) l2_entry_bytes = 16;
}

}  // namespace gabion::qcow2::testing
