"""What nobody needs goes back to the machine while a page is kept up."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

#: Frees cyclic pages of 64 KiB parts, each beside one that stays, and waits until they are back.
PROGRAM = """
import gc, json, sys, time, weakref
import psutil
from pruneviz import housekeeping

class Page:
    def __init__(self):
        self.me, self.parts, self.stays = self, [bytes(2**16) for _ in range(32)], bytes(2**10)

def held():
    return psutil.Process().memory_info().rss / 2**20

gc.disable()  # it would look by itself now and then
housekeeping.EVERY_S = 0.2
if sys.argv[1] == "kept":
    housekeeping.start()
pages = [Page() for _ in range(100)]
gone, full = weakref.ref(pages[0]), held()
stay = [page.stays for page in pages]
del pages
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end and full - held() < 100:
    time.sleep(0.05)
print(json.dumps([gone() is None, full - held()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked for what it keeps")
@pytest.mark.parametrize(("house", "seconds"), [("kept", 30), ("not kept", 1)])
def test_what_pages_leave_behind_is_given_back(house: str, seconds: int) -> None:
    """200 MiB of pages that hold themselves; without housekeeping they stay, which is what it is for."""
    typed = [sys.executable, "-c", PROGRAM, house, str(seconds)]
    freed, mib = json.loads(subprocess.run(typed, capture_output=True, text=True, check=True).stdout)
    assert freed is (house == "kept")
    assert (mib > 100) is (house == "kept"), mib


#: Threads that hold memory all at once: how many heaps there are then, and blocks that are mapped apart.
THREADS = """
import ctypes, json, pathlib, re, sys, tempfile, threading
from pruneviz import housekeeping

if sys.argv[1] == "kept":
    housekeeping.spare()
met, large = threading.Barrier(9), [bytearray(2**20)]

def hold():
    del large[:]  # glibc would raise its threshold to a megabyte by this
    parts = [bytearray(2**10) for _ in range(100)] + [bytearray(2**19)]
    met.wait()
    met.wait()

for _ in range(8):
    threading.Thread(target=hold).start()
met.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as file:
    out = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, out)
    libc.fclose(out)
    said = pathlib.Path(file.name).read_text()
met.wait()
mapped = re.findall('type="mmap" count="([0-9]+)"', said)[-1]
print(json.dumps([len(re.findall("<heap ", said)), int(mapped)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked for what it keeps")
@pytest.mark.parametrize("house", ["kept", "not kept"])
def test_threads_share_two_heaps_and_large_blocks_lie_apart(house: str) -> None:
    """What is freed in one heap serves no thread that has another, and a large block leaves a large hole."""
    typed = [sys.executable, "-c", THREADS, house]
    heaps, mapped = json.loads(subprocess.run(typed, capture_output=True, text=True, check=True).stdout)
    assert (heaps <= 2) is (house == "kept"), heaps
    assert (mapped >= 8) is (house == "kept"), mapped
