#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/engine/formats/qcow2/bytes_of_image.h"
#include "tests/engine/formats/qcow2/mutations.h"
#include "tests/engine/formats/qcow2/qemu_tools.h"
#include "tests/support_io/temp_dir.h"

namespace gabion::qcow2::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

void ExpectVerdict(const absl::StatusOr<ParsedHeader>& parsed, Verdict verdict,
                   const std::string& text) {
  switch (verdict) {
    case Verdict::kAccept:
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_THAT(parsed->warnings, ::testing::IsEmpty());
      return;
    case Verdict::kWarn:
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_THAT(parsed->warnings, Contains(HasSubstr(text)));
      return;
    case Verdict::kReject:
    case Verdict::kLack:
      EXPECT_EQ(parsed.status().code(), verdict == Verdict::kLack
                                            ? absl::StatusCode::kUnimplemented
                                            : absl::StatusCode::kFailedPrecondition)
          << parsed.status();
      EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(text));
      return;
  }
}

class HeaderVerdictTest : public ::testing::TestWithParam<Mutation> {};

TEST_P(HeaderVerdictTest, OfAnImageInMemory) {
  ImageFile file = ImageForVerdicts();
  GetParam().change(file);
  ExpectVerdict(Parse(file, Access::kRead), GetParam().read, GetParam().text);
  ExpectVerdict(Parse(file, Access::kReadWrite), GetParam().write, GetParam().text);
}

// The image of the recipe, made once.
const ImageFile& ImageOfQemu() {
  static const ImageFile file = [] {
    const test::TempDir dir;
    const std::string path = dir.File("base.qcow2");
    const CommandResult made = RunCommand(
        absl::StrCat("set -e; f=", path, "; qemu-img create -q -f qcow2 $f 1M; ",
                     "qemu-io -f qcow2 -c 'w -P1 0 64k' -c 'w -c -P3 128k 64k' $f; ",
                     "qemu-img snapshot -c s1 $f; qemu-img bitmap --add -f qcow2 $f b0; ",
                     "qemu-io -f qcow2 -c 'w -P1 0 64k' $f"));
    EXPECT_EQ(made.exit_status, 0) << made.output;
    return ReadWhole(path);
  }();
  return file;
}

TEST_P(HeaderVerdictTest, OfAnImageOfQemuNeverTakesWhatQemuRefuses) {
  if (const std::string missing = MissingQemuTool(); !missing.empty()) GTEST_SKIP() << missing;
  ImageFile file = ImageOfQemu();
  GetParam().change(file);
  ExpectVerdict(Parse(file, Access::kRead), GetParam().read, GetParam().text);
  ExpectVerdict(Parse(file, Access::kReadWrite), GetParam().write, GetParam().text);

  const test::TempDir dir;
  const std::string path = dir.File("changed.qcow2");
  WriteWhole(path, file);
  const CommandResult opened = RunCommand(absl::StrCat("qemu-io -f qcow2 -r -c 'length' ", path));
  const bool refused = opened.output.find("can't open") != std::string::npos;
  const bool opens = Parse(file, Access::kRead).ok();
  EXPECT_EQ(refused && opens, GetParam().only_gabion_opens) << opened.output;
}

INSTANTIATE_TEST_SUITE_P(Table, HeaderVerdictTest, ::testing::ValuesIn(Mutations()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace gabion::qcow2::testing
