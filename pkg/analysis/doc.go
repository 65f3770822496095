// Package analysis finds, by reading machine code, every system call that a
// program can ever make.
//
// # What sound and precise mean here
//
// The answer is sound when it holds every call that any run of the program can
// make, whatever its input. It is the more precise the fewer other calls it
// holds. Soundness comes first: each step that can't follow something widens
// the answer (an unknown number allows every call) or says in
// Result.Incomplete what is missing, and never guesses in silence.
//
// # The way through
//
//	object   bytes -> segments, symbols, relocations, unwind ranges
//	x86, arm64  bytes -> instructions
//	facts    one object -> functions, edges, data, imports, exports, and the
//	         system call sites with their numbers; cached by content
//	objects  the objects of a root, each read once
//	providers  libraries that the root's configuration names
//	link     a program -> its closure, as the image's own loader finds it
//	reach    a closure -> what is reachable, to a fixed point
//	analyze  programs, the scripts and programs that they execute, the result
//
// # Assumptions
//
// The answer is sound for programs that keep to these:
//
//   - Control goes where an instruction or a pointer leads: to direct targets,
//     to functions whose address reachable code computes or reachable data
//     holds, through jump tables, and to what the loader binds. Code that a
//     program writes at run time (a JIT) makes only calls that its compiler
//     can make through functions that are there.
//   - Pointers in position-independent objects are made by relocations; in
//     programs with fixed addresses, every aligned word and every immediate
//     that is the address of code counts as one.
//   - A section of data is reached as a whole by any address in it, up to 128
//     bytes before it, or at its end: array bases that compilers fold are not
//     further off.
//   - Where the global offset table begins at the end of another section, its
//     address is that of the end, unless the function that computes it has
//     instructions that read memory through a register.
//   - An address of a function that code loads into a register which calls leave
//     alone, and uses there for nothing but calls, goes nowhere else: landing
//     pads included, as the unwinder's tables name them.
//   - Functions keep their calling convention: the System V one (or Go's, in
//     Go programs), with callee-saved registers saved, and callees write
//     nothing of their callers' stack frames but what they were given a
//     pointer to.
//   - A number that is kept in a variable that isn't exported is written by
//     instructions that name the variable, or through pointers to it that can
//     be followed; it isn't written through pointers to a neighbouring variable
//     (one that lies more than 16 bytes before it, or that is accessed as a
//     whole, or the last of three that pointers in data lead to at equal
//     distances).
//   - A function whose address lies in an object's data only, and that gets a
//     number, is called through that pointer by this object alone, with
//     constants (note "indirect-number"). Pointers to functions lead to their
//     start.
//   - Code addresses are relative to the instruction, absolute, distances in a
//     table (from its start or from the word itself) that code or data names,
//     or offsets of the large code model from the global offset table. Tables
//     that begin before the address that is named aren't followed.
//   - 32-bit x86 code names others by absolute addresses, or by their distances
//     from an address that it computes from its own by a call and an addition;
//     compilers take the addresses of no slots of the global offset table, and
//     load no slots that stubs jump through. A function that does nothing but
//     int $0x80 and whose address a variable holds is called through that
//     variable, or through the thread's control block, alone. Functions that
//     return a structure take a pointer to it from the stack; where one of
//     another object did, what was read of the stack isn't believed.
//   - A callback that reads a number behind a pointer gets that pointer in the
//     call that passes the callback.
//   - Code between unwind ranges that nothing known enters is entered, if at all,
//     by who holds an address in the same gap (a blob of code whose entries lie
//     at distances that data states). Without symbols it begins at a multiple
//     of 16 bytes, behind the end of other code. Objects without any unwind
//     ranges have no such code.
//   - Bytes between unwind ranges that can't be instructions of a user program
//     are data.
//   - Names of libraries and functions that code computes are covered by what
//     was seen during a run, by Program.Load, or by the configuration that the
//     image has (package providers); otherwise Result.Incomplete says so.
//   - A handle that is looked in for a computed name, and that can't be followed
//     (it was kept in memory or returned by a function, or somebody passes it
//     through a pointer to a function), comes from dlopen: it isn't RTLD_DEFAULT
//     or RTLD_NEXT. It may be that of the whole program where dlopen is called
//     without a name, in a function that is called directly or by the loader.
//   - Static programs convert between the character sets that glibc has built
//     in; in others, conversions are for those that iconv_open, a mode of fopen
//     or the locale of Program.Env can name.
//   - Arguments are followed as numbers are, over all code of a function,
//     landing pads and labels that something keeps included. Those of functions
//     whose addresses are taken, that are looked up by name, that the loader or
//     the kernel calls, or that tables of Go's may hold are unknown. A function
//     that is looked up by a computed name is one of a library that was loaded
//     by name, or, where all objects are looked through, one whose name is a
//     text in them, or that the program exports, or the object that looks with
//     RTLD_DEFAULT or RTLD_NEXT; together with code that calls what it is told to with
//     arguments from a table (libraries for foreign functions), every argument
//     is unknown. Calls that the vDSO makes have unknown arguments. Other
//     threads don't write to what a function keeps on its stack while it
//     prepares a call, and functions that return twice have the names that C
//     compilers know.
//   - The program runs with the files of the root, and with the environment
//     that Program.Env states as far as the loader reads it.
//
// # Bounds
//
// Input comes from containers and is hostile. What is enforced is counted, not
// timed:
//
//   - A file has at most 1 GiB and 4 million symbols. Its segments don't overlap,
//     map at most twice its bytes and 1 MiB, and the executable ones lie at most
//     256 MiB, and 4 times its size, apart. Anything else is rejected, and the
//     result is incomplete.
//   - Code is decoded in time that grows with its size. Numbers, and once more
//     arguments, are looked for in at most 8 million steps (an instruction that
//     is interpreted, or what costs as much) and 8 for each byte of code; one
//     function gets 1 million. What isn't known by then is unknown.
//   - An object's tables are bounded by its size. All that is allocated for it,
//     free again or not, stays below 256 MiB and 256 bytes for each of its own:
//     the package facts holds objects that are corrupted in thousands of ways to
//     this. As many objects are looked at at once as there are processors.
//   - A closure has at most 4096 objects, an analysis 2048 programs. Beyond that
//     the result says what was left out.
//
// A panic over an object, a mistake of ours, makes that one unreadable.
package analysis
