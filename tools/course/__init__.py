"""The course: assignments that are released without solutions, graded apart from what they are graded by, and exported.

`python -m tools.course` has the commands; README.md, "Set it as a course", shows them in their order. What is secret:
the seed in the teacher's folder and the teacher's own assignments. What is not: everything in this repository, the
solutions and hidden tests of its assignments included.
"""
