"""Video files, and the stream that a player shows.

Only containers of `CONTAINERS` are opened, and only as files: a playlist or a manifest would open other files or
addresses, whose changes would go unnoticed.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mcpipe.core.records import RejectionError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.packet import Packet
    from av.video.stream import VideoStream

LARGEST_FRAME_PX = 64_000_000
"""Maximum number of pixels of a frame, about twice 8K; larger frames are faults of the header and would fill the
memory."""

CONTAINERS = ",".join(
    (
        # of today's cameras, editors and broadcasters
        "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,jpegxl_anim,mpegts,mpeg,mpegvideo,flv,live_flv,kux,asf,asf_o",
        "ogg,mxf,mxf_opatom,dv,nut,gxf,lxf,rm,wtv,swf,ivf,cine,r3d,ser,dhav,pva,ty,nuv,nsv,amv,moflex,hxvs,yuv4mpegpipe",
        # bare streams
        "h261,h263,h264,hevc,vvc,evc,av1,obu,m4v,vc1,vc1test,cavsvideo,avs2,avs3,dirac,dnxhd,apv,mjpeg,mjpeg_2000,smjpeg",
        "mpjpeg,ipu,pdv",
        # of games and of the past
        "4xm,anm,argo_brp,avs,bethsoftvid,bfi,bink,bmv,c93,cdxl,dfa,dsicin,dxa,ea,film_cpk,filmstrip,flic,gdv,hnm,idcin",
        "iff,ifv,ipmovie,iv8,ivr,jv,lmlm4,lvf,mgsts,mm,mods,msnwctcp,mtv,mv,mvi,mxg,paf,pmp,psxstr,rl2,roq,rpl,sga,siff",
        "simbiosis_imx,smk,smush,thp,tiertexseq,tmv,usm,vivo,vividas,vmd,wc3movie,wsvqa,wve,xmv,yop",
    )
)
"""FFmpeg's names of the accepted containers: all video containers that refer to no other file.

Not accepted are playlists and manifests (``hls``, ``dash``, ``imf``, ``concat``, ``sdp``, ``webm_dash_manifest``),
``mlv``, which continues in further files, devices, single images, sound, subtitles and rendered text (``tty``).
"""

SUFFIXES = frozenset(
    (
        ".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov",
        ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv",
    )
)  # fmt: skip
"""Endings of video files: an unreadable file with such an ending counts as damaged, not as another kind of file."""

HEAD_BYTES = 4096
"""Number of bytes at the start of a file by which text is recognised."""
QUOTED_SIGNS = 40
"""Maximum number of characters of a text in a rejection."""
MISREAD = 0.1
"""Maximum part of a text's characters that cannot be decoded as Unicode."""
CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b")
"""Characters that never occur in text."""

ALPHA_BLOCK = b"\x00\x00\x00\x00\x00\x00\x00\x01"
"""Identifier of the Matroska block addition that holds an image's alpha channel (WebM guidelines)."""
ALPHA_CODECS = ("vp8", "vp9", "av1")
"""Codecs whose alpha channel is a separate stream."""


class UnusableClipError(RejectionError):
    """Rejection of a file that is not a usable clip."""


def opened(file: Path) -> "InputContainer":
    """A container of a kind in `CONTAINERS`, opened as a file even if its name looks like an address.

    Raises:
        UnusableClipError: the file is of another kind (``not_a_video``).
        FFmpegError: the file cannot be read.

    """
    import av

    options = {"fflags": "+genpts", "format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    try:
        # An absolute path, because FFmpeg takes the beginning of a relative path with a colon for a protocol.
        return av.open(os.path.abspath(file), options=options)  # noqa: PTH100  a link is not followed
    except av.error.ArgumentError as error:
        raise UnusableClipError("not_a_video", "a playlist, a picture or another kind of file") from error


def unread(file: Path, error: "FFmpegError") -> UnusableClipError:
    """The rejection of a file that FFmpeg cannot read; text, and files without a video's ending, are no videos."""
    text = head_text(file)
    if text:
        return UnusableClipError("not_a_video", f"text, which begins with {text[:QUOTED_SIGNS]!r}")
    reason = "unreadable" if file.suffix.lower() in SUFFIXES else "not_a_video"
    return UnusableClipError(reason, f"{type(error).__name__}: {error.strerror}")


def head_text(file: Path) -> str:
    """The beginning of a text file; empty if the file is empty, is not text, or cannot be opened."""
    try:
        with file.open("rb") as content:
            head = content.read(HEAD_BYTES)
    except OSError:
        return ""
    is_wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if is_wide else "utf-8-sig", errors="replace")
    is_text = text.count("\ufffd") <= MISREAD * len(text) and not any(ord(sign) in CONTROLS for sign in text)
    return text if is_text else ""


def picture_stream(container: "InputContainer") -> "VideoStream":
    """The video stream that a player shows: the default stream, otherwise the largest; cover images do not count.

    Raises:
        UnusableClipError: there is no stream or no decoder, frames are too large, or there is a hidden alpha channel.

    """
    from av.stream import Disposition

    other = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails | Disposition.dependent
    streams = [stream for stream in container.streams.video if not stream.disposition & other]
    if not streams:
        raise UnusableClipError("no_video", "the file has no video stream")
    chosen = max(streams, key=lambda s: (bool(s.disposition & Disposition.default), _area(s), -s.index))
    if chosen.codec_context is None:
        raise UnusableClipError("unreadable", "no decoder for the video stream")
    if _area(chosen) > LARGEST_FRAME_PX:
        context = chosen.codec_context
        raise UnusableClipError("frame_too_large", f"{context.width} x {context.height} pixels")
    if any(name.lower() == "alpha_mode" and value == "1" for name, value in chosen.metadata.items()):
        raise hidden_alpha()
    return chosen


def hidden_alpha() -> UnusableClipError:
    """The rejection of a clip whose decoder ignores the alpha channel."""
    return UnusableClipError("hidden_alpha", "the alpha channel is a stream of its own that the decoder leaves out")


def has_alpha_beside(packet: "Packet", stream: "VideoStream") -> bool:
    """Whether a packet carries an alpha channel beside the image, even if the header does not declare it."""
    if stream.codec_context.codec.canonical_name not in ALPHA_CODECS:
        return False
    kind = "matroska_block_additional"
    return packet.has_sidedata(kind) and bytes(packet.get_sidedata(kind))[:8] == ALPHA_BLOCK


def _area(stream: "VideoStream") -> int:
    context = stream.codec_context
    return 0 if context is None else context.width * context.height
