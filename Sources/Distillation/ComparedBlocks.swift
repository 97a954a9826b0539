/// Which of the teacher's blocks makes what each of some of the student's blocks should make.
struct ComparedBlocks {
  /// The teacher's block, by the student's.
  let teachers: [Int: Int]

  /// - Parameters:
  ///   - count: behind how many blocks of the student states are compared; spread evenly, the last among them.
  ///   - kept: the teacher's blocks that the student's are. A block is to make what the next one that is left was used to read: what the
  ///     blocks between them did is its work now. Empty where they are no part of the teacher: the same shares of both depths then.
  init(_ count: Int, ofStudent student: Int, teacher: Int, kept: [Int]) {
    let count = min(count, student)
    var teachers: [Int: Int] = [:]
    for part in stride(from: 1, through: count, by: 1) {
      let block = (part * student + count - 1) / count - 1
      let depth = block + 1
      teachers[block] =
        kept.count == student ? (depth < student ? kept[depth] : teacher) - 1 : max(1, (2 * depth * teacher + student) / (2 * student)) - 1
    }
    self.teachers = teachers
  }
}
