// swift-tools-version: 6.2
import PackageDescription

// One section per layer, lowest first; a target may import what stands above it here and is named in its list.
// `--explicit-target-dependency-import-check error` holds the build to it.

let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .treatAllWarnings(as: .error),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(of name: String, _ dependencies: [Target.Dependency] = [], resources: [Resource] = []) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: [.byName(name: name), "TestSupport"] + dependencies, resources: resources,
    swiftSettings: settings)
}

let package = Package(
  name: "compress",
  products: [
    .library(name: "CompressKit", targets: ["CompressKit"]),
    .library(name: "CompressCommand", targets: ["CompressCommand"]),
    .executable(name: "compress", targets: ["compress"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    // System libraries and inner loops.
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"]), .brew(["openblas"])]),
    .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"]), .brew(["pcre2"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"]), .brew(["zlib"])]),
    .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"]), .brew(["openssl@3"])]),
    .systemLibrary(name: "CHDF5", pkgConfig: "hdf5", providers: [.apt(["libhdf5-dev"]), .brew(["hdf5"])]),
    .target(name: "CKernels", cSettings: [.define("_GNU_SOURCE")]),
    .target(name: "CMappedPages"),

    // Storage, arithmetic, text.
    module("StrictJSON"),
    module("Tensors", ["CKernels", "COpenBLAS"]),
    module("Tokenizers", ["StrictJSON", "CPCRE2"]),

    // Checkpoints and the models in them.
    module("CheckpointIO", ["Tensors", "StrictJSON", "CMappedPages", "CZlib", "CHDF5"]),
    module("Models", ["CheckpointIO", "StrictJSON", "Tensors"]),
    module("Formats", ["Models", "CheckpointIO", "Tokenizers", "StrictJSON", "Tensors"]),

    // What is done to a model.
    module("Passes", ["Models", "CheckpointIO", "Tensors"]),
    module("Training", ["Passes", "Models", "Tensors"]),
    module("Quantization", ["Training", "Passes", "Models", "Tensors"]),
    module("KVCache", ["Passes", "Models", "Tensors"]),
    module("Evaluation", ["KVCache", "Passes", "Models", "CheckpointIO", "Tensors"]),
    module("Pruning", ["Quantization", "Evaluation", "Passes", "Models", "Tensors"]),
    module("Allocation", ["Quantization", "Evaluation", "Passes", "Models", "Tensors"]),
    module("Distillation", ["Training", "Evaluation", "Passes", "Models", "CheckpointIO", "Tensors"]),
    module("LowRank", ["Allocation", "Quantization", "Evaluation", "Passes", "Models", "Tensors"]),

    // Recipes, the umbrella, the command.
    module("Recipes", ["Passes", "Models", "StrictJSON", .product(name: "Yams", package: "Yams")]),
    module(
      "CompressKit",
      [
        "Recipes", "Distillation", "Training", "LowRank", "Allocation", "Pruning", "Evaluation", "KVCache", "Formats", "Quantization",
        "Passes", "Models",
        "CheckpointIO",
        "Tokenizers", "Tensors", "StrictJSON", "CCrypto",
      ]),
    module("CompressCommand", ["CompressKit", .product(name: "ArgumentParser", package: "swift-argument-parser")]),
    .executableTarget(name: "compress", dependencies: ["CompressCommand", "CompressKit"], swiftSettings: settings),

    // Tests mirror the sources.
    .target(name: "TestSupport", dependencies: ["CompressKit"], path: "Tests/TestSupport", swiftSettings: settings),
    tests(of: "StrictJSON"),
    tests(of: "Tensors", ["CKernels"]),
    tests(of: "Tokenizers", ["StrictJSON"]),
    tests(of: "CheckpointIO", ["Tensors", "StrictJSON"], resources: [.copy("Fixtures")]),
    tests(of: "Models", ["CompressKit"], resources: [.copy("Fixtures")]),
    tests(of: "Formats", ["CompressKit"], resources: [.copy("Fixtures")]),
    tests(of: "Passes", ["CompressKit"]),
    tests(of: "Quantization", ["CompressKit"], resources: [.copy("Fixtures")]),
    tests(of: "KVCache", ["CompressKit"]),
    tests(of: "Training", ["CompressKit"], resources: [.copy("Fixtures")]),
    tests(of: "Distillation", ["CompressKit"]),
    tests(of: "Pruning", ["CompressKit"], resources: [.copy("Fixtures")]),
    tests(of: "Evaluation", ["CompressKit"]),
    tests(of: "Allocation", ["CompressKit"]),
    tests(of: "LowRank", ["CompressKit"]),
    tests(of: "Recipes", ["CompressKit"]),
    tests(of: "CompressCommand", ["CompressKit", .product(name: "ArgumentParser", package: "swift-argument-parser")]),
    .testTarget(
      name: "FuzzTests", dependencies: ["CompressKit", "TestSupport", "Tensors", "CheckpointIO"], exclude: ["Corpus"],
      swiftSettings: settings),
    .testTarget(name: "EndToEndTests", dependencies: ["CompressKit", "TestSupport", "compress"], swiftSettings: settings),
  ]
)
