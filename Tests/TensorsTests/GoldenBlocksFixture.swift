/// Blocks of ggml d99724f, compiled for x86-64 without fused multiply-adds, through `ggml_quantize_chunk`.
///
/// The input is x = ((s >> 8) − 2²³) / 2²³ over the states s = 1664525 · s + 1013904223 mod 2³² from 12345; importances are
/// (1 + (s >> 24)) / 64 from 777. A block takes the first ones.
let goldenBlocks: [(name: String, hasImportance: Bool, bytes: String)] = [
  (
    "Q4_0", false,
    "e6afaf1fa716015e9887b6935fe4f02fb5f9"
  ),
  (
    "Q4_0", true,
    "56b0af1f9716126e9887b7945fd4e13eb5f9"
  ),
  (
    "Q4_1", false,
    "3630e3bb60e068eafea26778496ca02b1fd15b07"
  ),
  (
    "Q4_1", true,
    "2f309fbb60e068e9fea16778496ca02b1ed14a07"
  ),
  (
    "Q5_0", false,
    "e6ab63a4c5db3f1f3f1c03bd200e7d27afb8d15e6af1"
  ),
  (
    "Q5_0", true,
    "24ac63a4c5db3f2f3f2c13bc200f7d27beb8d25d6af1"
  ),
  (
    "Q5_1", false,
    "132ce3bb9c5b3a24c0e0d1e4fc53dff193d851573eb2a60e"
  ),
  (
    "Q5_1", true,
    "292cc0bb9c5b3a24c0d0c0d3ec43dff082d841462da2950e"
  ),
  (
    "Q8_0", false,
    "f61f85840b23699cff0c19498a3f789233f6e576e8747f2aec00c9ec2da7965bd081"
  ),
  (
    "Q2_K", false,
    "dedeffacaaccbbeebdbcfddabcbdddbc64d4da7e3348c556fefa28cadbb03ed9756ba5fbeb3a95317509a6ecc46f79c0d794eaa281adf74ec215b931"
      + "d5259f85c026aab5df1c10b24e52b961969d66586329372c"
  ),
  (
    "Q2_K", true,
    "dfcece9c9acdbbceadbcfecbacadedbc64d4da7e3348c556fefa28cadbb03ed9752ba5fbeb3a9531750966ecc46f79c0d794eaa2c1edf78ec215b931"
      + "d5259f85c026aaf5df1c10b24a52b5a1869d66582629482c"
  ),
  (
    "Q3_K", false,
    "c6d8ab87d5b289e1cf5fb61bdb1ce7db4b98370070e8c71bfbdd0a91576899e7a0bcb0fd7799dcfcbda244a6f739bef851a8c9883ccbd5dc52f93373"
      + "37714a7fed1be663b5bdc83ee71c5000d975186920ede65f27d8d4c53585cf24a9dba99095ca50569897765cf0cf00cfe9a0"
  ),
  (
    "Q3_K", true,
    "c6d8ab87d5b289e1cf5fb61bdb1ce7db4b98371070e8c71bfbdd1a91576899e7a1bdb0fd7799dcfcbda245a6f739bdf861b9c9997dd7d4ec61f83372"
      + "7772597f9c1ba663b57ec83da65d505099b6182931ede55c27d9d5c53585cc24a9eba991338f62749a7b174ef0cf00cf2ba1"
  ),
  (
    "Q4_K", false,
    "3b180e24fdfbf2febcfcf2fcf5ef5ffd704098fa0ec15758f99cb0abaf21fbc776cf56bf9fca763874b68ae261fdc5204bc5b55d2d41d066cfbc18b3"
      + "d68f3ee56e3ba8cffa0fa50d5e108aeaf0495fe05e319b0915d44fec1a5686073424cf3500599a66adb020199829661648c44980d485daaac1b9fe70"
      + "d205bc1de5289592e23a9acce425359e71579e8ab3945955"
  ),
  (
    "Q4_K", true,
    "4318ff23fffaf4fdfdfcf5fc05c77ffd704098f90ec14758f99cb0abae21fac776ce56be9fca763774b68ae261fdc4204bc5b55d2d42d166cfbc18b3"
      + "d68e3de56e3ba8cffa0fa60d5e108aeaf0495fe05e31ab0915f44ffc1a6696073524df350059aa66bdc02019a829661648d44990d485daaac1b9fe70"
      + "d305bc1de5289592e23a9acce425359e71579e8ab3944955"
  ),
  (
    "Q5_K", false,
    "23140024fefcf5fffffdf4fe16f949fc9488fbd785e2d9319f0fe64b8b4cb78a8457fccfbf2708d53412cfce98a75628e09021f40d9390a1f3195158"
      + "4f52e69eec7ead7e2f85ed60e95d05c5c3eb8a40868a6aba5a83b1cc8d682176ab1d6bcacc66509ef40f4b0abb3004c3e192aed0ad6246023be88ff8"
      + "34cc3d0e7959ae7a00b344dc7b9140325143dc2d91b99320b81bb6578173fff0b50a6b1dcb312b34d466369ad85b6a2ef2bf3f16773895ba"
  ),
  (
    "Q5_K", true,
    "3b140624fffdf4fefefef4fd04e838fb9488fbd785e2d8319f0fe64b8b4cb78a8457fccfbf2708d43412c7ce98a75628e09020e30c839fa0e2185146"
      + "3d52d58eec7dac6d2e84ed6fe85d04b4c2da7940868a6aba5a83b1cc8d682166ab1d6bcacc66509ef40f4b0aab30f4c3e192aec0ad6246023be88ff8"
      + "34cc3d0e7959af7a00b344dc7b9140325143dc2d91a99320b81bb6568173fff0b50a6b1dcb312b34d465369ad75b6a2ef2bf3f16773894ba"
  ),
  (
    "Q6_K", false,
    "f04043899b560083f63331b07ff4ad5d7723e633611695b08de57586daaa3ceffe52257e80f2d3845e131b2aa85aacf1632f5dc01afc64e69383fe64"
      + "28c0ae5bc5651109856a00ae1673814158aa6228302a1e9ccd52712966eb1c2dd6b44b71641c659107e7d0ea6607c3318e7a315f209586c80ccf97b5"
      + "37d789f411a211c224d4da7e330cc656fefb28cbdbb03edd8ad05a0414c16ace8af655133b90823fe4a3d991f29ec47cf1268a02e212acb230d65a05"
      + "2be8e042ba924551666dd6a878827a966094698089607f7985837b9b1c0c"
  ),
  (
    "Q6_K", true,
    "003043999b560083f63332b07ff4bd5d7713e623610695a07df57586eaaa2cfffd62256f70f3e3845f130b3bb859adf2632f5dc01afc64e69383fe64"
      + "28c0ae5bc5651109856a00ae1673814168aa6328312a1e9ccc53722866eb1c2dd6b54b71641c659006e8d0ea6607c3318e7a315e209586c80ccf97b6"
      + "37d789f411a211c234d4da7e330cc656fefb28cbdbb03edd8ad05a0414c16ace8af655133b90823fe4a3d991f29ec47cf1268a02e212acb230d65a05"
      + "2be8e042ba924551666dd6a8788276965e98668088627d7986847a9c1f0c"
  ),
  (
    "IQ4_NL", false,
    "052060f069fbffb168894a6db02d1fe14c07"
  ),
  (
    "IQ4_NL", true,
    "062060f069fbffb168894a6db02d1fe14c07"
  ),
  (
    "IQ4_XS", false,
    "3b0c0fccee05e1e260f069fbffb168894a6db02d1fe14c0777c449cfa0dd74247fb98beb6bf2df2d144b7b12520ebf2a21f3575dfa6112fbacd3442a"
      + "0dfc52fab3e48e1302c7bd11e15d44962aebe063655998986bbb51ea0442aa50c1ce131fa115691032d23d83dc4a3323cea5a00fed7a0131cab64aad"
      + "ee28aedbfd2c2f977e40ac80cea1495a"
  ),
  (
    "IQ4_XS", true,
    "100c0fccff03f4e360f069fbffb168894a6dc02d1fe14c0777c449cfa0dd74247fb98beb6bf2df2d244b7b12520ebf2a21f3575dfa6112fbacd3432a"
      + "0efc51fab3e48f1302c7bd11f05e43951afbf052645998986bbb50fb0442aa50c1ce131fa115691032d23d83ec3a3313cfa5a00fed7b0130cac64aad"
      + "fe28aedbfd1c2f977e40ac80cea1495a"
  ),
  (
    "MXFP4", false,
    "7cbf7fb174775fa002d3a65ff6f77fd5f9"
  ),
  (
    "NVFP4", false,
    "222322212f6ff15377fe5091caa74ae7e764caf0791d42473fe67d5c99451c75b2765afe"
  ),
]
