"""System call numbers of what a runtime may do: `name:x86_64:aarch64`, a dash where there is none.

Written from the kernel's own headers. What is not here is refused: processes, sockets, mounts,
credentials, ownership and modes of files, tracing, keyrings, io_uring, bpf and whatever comes next.
"""

from __future__ import annotations

import platform

ALLOWED = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69
pwritev:296:70 preadv2:327:286 pwritev2:328:287 close:3:57 close_range:436:436 lseek:8:62
stat:4:- lstat:6:- fstat:5:80 newfstatat:262:79 statx:332:291 access:21:- faccessat:269:48
faccessat2:439:439 readlink:89:- readlinkat:267:78 getdents:78:- getdents64:217:61
getcwd:79:17 chdir:80:49 fchdir:81:50 umask:95:166 dup:32:23 dup2:33:- dup3:292:24 fsync:74:82
fdatasync:75:83 ftruncate:77:46 fallocate:285:47 fadvise64:221:223 readahead:187:213
flock:73:32 statfs:137:43 fstatfs:138:44 rename:82:- renameat:264:38 renameat2:316:276
unlink:87:- unlinkat:263:35 mkdir:83:- mkdirat:258:34 rmdir:84:- link:86:- linkat:265:37
symlink:88:- symlinkat:266:36 sendfile:40:71 copy_file_range:326:285 mmap:9:222 munmap:11:215
mprotect:10:226 mremap:25:216 madvise:28:233 msync:26:227 brk:12:214 futex:202:98
futex_waitv:449:449 set_robust_list:273:99 get_robust_list:274:100 set_tid_address:218:96
rseq:334:293 membarrier:324:283 sched_yield:24:124 sched_getaffinity:204:123
sched_getparam:143:121 sched_getscheduler:145:120 sched_get_priority_max:146:125
sched_get_priority_min:147:126 getcpu:309:168 gettid:186:178 exit:60:93 exit_group:231:94
restart_syscall:219:128 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139
rt_sigpending:127:136 rt_sigsuspend:130:133 rt_sigtimedwait:128:137 sigaltstack:131:132
pause:34:- alarm:37:- setitimer:38:103 getitimer:36:102 poll:7:- ppoll:271:73 select:23:-
pselect6:270:72 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:-
epoll_pwait:281:22 epoll_pwait2:441:441 eventfd:284:- eventfd2:290:19 timerfd_create:283:85
timerfd_settime:286:86 timerfd_gettime:287:87 pipe:22:- pipe2:293:59 nanosleep:35:101
clock_nanosleep:230:115 wait4:61:260 waitid:247:95 getpid:39:172 getppid:110:173
getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148
getresgid:120:150 getgroups:115:158 getpgid:121:155 getpgrp:111:- getsid:124:156
getpriority:140:141 getrlimit:97:163 getrusage:98:165 times:100:153 time:201:-
gettimeofday:96:169 clock_gettime:228:113 clock_getres:229:114 uname:63:160 sysinfo:99:179
getrandom:318:278 recvfrom:45:207 shutdown:48:210 getsockopt:55:209 getsockname:51:204
getpeername:52:205
"""

ALLOWED_BY_ARGUMENT = """
open:2:- openat:257:56 clone:56:220 clone3:435:435 fcntl:72:25 ioctl:16:29 prctl:157:167
kill:62:129 tgkill:234:131 prlimit64:302:261 sched_setaffinity:203:122 socketpair:53:199
sendto:44:206
"""

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def numbers(table: str, machine: str | None = None) -> dict[str, int]:
    """The table's calls on `machine` (default: this one); `KeyError` for a machine without a
    column.
    """
    column = {"x86_64": 1, "aarch64": 2}[machine or platform.machine()]
    rows = (entry.split(":") for entry in table.split())
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}
