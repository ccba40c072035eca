// What the protos say of errors: whoever gets a reason finds it at the method that gave it, or
// among those that all methods know, at the top of common.proto.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "tests/service/api/error_scenes.h"

namespace gabion::service {
namespace {

const std::string kProtos = GABION_SOURCE_DIR "/proto/";

std::string Text(const std::string& file) {
  std::ifstream stream(kProtos + file);
  EXPECT_TRUE(stream.good()) << file;
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The words of a text that can be reasons.
std::set<std::string> Words(const std::string& text) {
  static const std::regex word("[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|DRAINING|INTERNAL");
  return {std::sregex_token_iterator(text.begin(), text.end(), word), {}};
}

// The comments above the methods of a file, by Service/Method with its package.
std::map<std::string, std::string> MethodComments(const std::string& file) {
  std::map<std::string, std::string> comments;
  std::istringstream lines(Text(file));
  std::string package;
  std::string service;
  std::string comment;
  std::smatch found;
  for (std::string line; std::getline(lines, line);) {
    if (std::regex_match(line, found, std::regex("package (.*);"))) package = found[1];
    if (std::regex_match(line, found, std::regex("service (\\w+) \\{"))) service = found[1];
    if (std::regex_match(line, found, std::regex("  rpc (\\w+)\\(.*"))) {
      comments[package + "." + service + "/" + found[1].str()] = comment;
    }
    const bool goes_on = std::regex_match(line, found, std::regex(" *// ?(.*)"));
    comment = goes_on ? comment + found[1].str() + " " : "";
  }
  return comments;
}

class DocumentedReasonsTest : public testing::Test {
 protected:
  DocumentedReasonsTest() {
    const std::string top = Text("gabion/v1/common.proto");
    everywhere_ = Words(top.substr(0, top.find("syntax = ")));
    for (const char* file :
         {"gabion/v1/image.proto", "gabion/v1/export.proto", "gabion/v1/filter.proto",
          "gabion/v1/inspect.proto", "gabion/v1/job.proto", "gabion/v1/watch.proto",
          "google/longrunning/operations.proto"}) {
      methods_.merge(MethodComments(file));
    }
  }

  // What is said at a method, and at the one of its service to whose errors it refers.
  std::set<std::string> WordsAt(const std::string& method) const {
    const std::string& comment = methods_.at(method);
    std::set<std::string> words = Words(comment);
    std::smatch found;
    if (std::regex_search(comment, found, std::regex("[Ee]rrors (as|of) (\\w+)"))) {
      const std::string other = method.substr(0, method.find('/') + 1) + found[2].str();
      EXPECT_TRUE(methods_.contains(other)) << comment;
      words.merge(Words(methods_.at(other)));
    }
    return words;
  }

  std::set<std::string> everywhere_;
  std::map<std::string, std::string> methods_;
};

TEST_F(DocumentedReasonsTest, EachIsSaidWhereItIsGiven) {
  for (const ErrorScene& scene : ErrorScenes()) {
    const std::string name(scene.reason.name);
    if (everywhere_.contains(name)) continue;
    ASSERT_TRUE(methods_.contains(scene.method)) << scene.method;
    EXPECT_TRUE(WordsAt(scene.method).contains(name)) << name << ": " << scene.method;
  }
}

TEST_F(DocumentedReasonsTest, EachIsSaidSomewhere) {
  std::set<std::string> said = everywhere_;
  for (const auto& [method, comment] : methods_) said.merge(Words(comment));
  for (const ErrorReason& reason : AllReasons()) {
    EXPECT_TRUE(said.contains(std::string(reason.name))) << reason.name;
  }
}

}  // namespace
}  // namespace gabion::service
