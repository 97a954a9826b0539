// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that the product carries no benchmark code.
let package = Package(
  name: "Benchmarks",
  dependencies: [.package(name: "compress", path: "../..")],
  targets: [
    .executableTarget(
      name: "Benchmarks", dependencies: [.product(name: "CompressKit", package: "compress")], swiftSettings: [.swiftLanguageMode(.v6)])
  ]
)
