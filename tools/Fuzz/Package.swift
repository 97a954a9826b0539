// swift-tools-version: 6.2
import PackageDescription

// A package of its own: the product carries no instrumentation. `tools/fuzz` builds and runs it, because only a command line may give
// the compiler the flags that it needs.
let package = Package(
  name: "Fuzz",
  dependencies: [.package(name: "compress", path: "../..")],
  targets: [
    .target(name: "CLibFuzzer"),
    .executableTarget(
      name: "Fuzz", dependencies: ["CLibFuzzer", .product(name: "CompressKit", package: "compress")],
      swiftSettings: [.swiftLanguageMode(.v6)]),
  ]
)
