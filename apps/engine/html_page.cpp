#include "apps/engine/html_page.h"

#include <cmath>
#include <cstdio>

namespace vireo {
namespace {

constexpr const char* kStyle = R"css(
:root { --ink: #1f2430; --soft: #5b6472; --faint: #98a1ae; --line: #e4e8ee; --panel: #f7f9fb; --accent: #2b6cb0; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; line-height: 1.5; font-size: 15px;
  font-family: "Inter", "Segoe UI", system-ui, -apple-system, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 48px 32px 80px; }
h1 { font-size: 28px; font-weight: 600; letter-spacing: -0.015em; margin: 0 0 4px; }
h2 { font-size: 17px; font-weight: 600; margin: 44px 0 12px; }
.sub { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 28px 0 0; }
.figure { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.figure b { display: block; font-size: 25px; font-weight: 600; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.figure span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: right; font-weight: 500; color: var(--soft); font-size: 12.5px; padding: 6px 10px; border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td small { display: block; color: var(--faint); font-size: 11.5px; }
tr.mean td { font-weight: 600; border-bottom: 0; border-top: 1.5px solid var(--ink); }
tr.mean small { font-weight: 400; }
.chip { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 20px; }
.plots svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 10px; background: #fff; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); gap: 24px 20px; }
figure { margin: 0; }
figure div { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; border-radius: 8px; overflow: hidden; background: #000; }
figure img { width: 100%; display: block; }
figcaption { font-size: 13px; color: var(--soft); margin-top: 6px; }
figcaption b { color: var(--ink); font-weight: 600; }
.tag { display: inline-block; font-size: 11px; border-radius: 4px; padding: 0 6px; margin-right: 6px; background: #e8f1ec; color: #22684a; }
.tag.low { background: #fbeae5; color: #9a3412; }
.legend { color: var(--soft); font-size: 13px; margin: 0 0 14px; } .legend span { margin-right: 16px; white-space: nowrap; }
.scroll { overflow-x: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 20px; font-size: 13.5px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
footer { margin-top: 52px; color: var(--faint); font-size: 12.5px; }
@media print { main { padding: 0; } h2 { break-after: avoid; } figure, .figure, svg { break-inside: avoid; } }
@media (max-width: 640px) { main { padding: 28px 16px; } .plots, .pictures { grid-template-columns: 1fr; } }
)css";

}  // namespace

std::string page_begin(const std::string& title) {
  return "<!doctype html>\n<html lang=en>\n<head><meta charset=utf-8>\n"
         "<meta name=viewport content='width=device-width, initial-scale=1'>\n<title>" +
         escaped(title) + "</title>\n<style>" + kStyle + "</style></head>\n<body><main>\n";
}

std::string page_end() {
  return "</main></body></html>\n";
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  return result;
}

std::string number(double value, int digits) {
  if (std::isnan(value)) return "–";
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string hex(const Color& color) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", color[0], color[1], color[2]);
  return text;
}

}  // namespace vireo
